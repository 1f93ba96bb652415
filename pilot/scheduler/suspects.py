"""Tasks that are lost with their node, its launcher or the pilot again and again. Pure.

A loss costs a task nothing: it is run again. But one that takes its node with it each time (by its memory, say) would
go through all nodes and all allocations, and its neighbours with it. So who was lost three times in a row is a suspect.
Of those with the most losses, half at most run at a time: each further loss halves them, until one runs alone. What is
lost then is its own fault and counts as a failure, for which there is a budget. Any other end clears a task.
"""

from collections.abc import Collection, Container, Iterator, Mapping

from db.states import Verdict

#: so many losses in a row may be chance
PATIENCE = 3


class Suspects:
    """How many losses in a row each task has had, where it has had any."""

    def __init__(self, losses: Mapping[int, int] | None = None) -> None:
        self._losses = dict(losses or {})

    def __len__(self) -> int:
        return len(self._losses)

    def __iter__(self) -> Iterator[int]:
        return iter([task for task, number in self._losses.items() if number >= PATIENCE])

    def among(self, tasks: Collection[int]) -> set[int]:
        """Those of ``tasks`` that are suspects."""
        return {task for task in self._losses.keys() & tasks if self._losses[task] >= PATIENCE}

    def ended(self, task: int, verdict: Verdict, *, lost: bool) -> int:
        """An attempt has ended; how many losses in a row the task has had now. A drain neither adds nor clears."""
        if lost:
            self._losses[task] = self._losses.get(task, 0) + 1
        elif verdict is not Verdict.INTERRUPTED:
            self.forget(task)
        return self._losses.get(task, 0)

    def forget(self, task: int) -> None:
        """A task has ended for good."""
        self._losses.pop(task, None)

    def held_back(self, ready: Container[int], running: Collection[int]) -> list[int]:
        """The ready tasks that must not start now.

        Args:
            ready: tasks that could start if there was room: who cannot must not keep the others waiting.
            running: tasks that run.
        """
        under_way = self.among(running)
        waiting = sorted(task for task in self if task in ready)
        if not waiting:
            return []
        most = max(self._losses[task] for task in (*under_way, *waiting))
        worst = [task for task in waiting if self._losses[task] == most]
        number = len(worst) + sum(self._losses[task] == most for task in under_way)
        room = max(0, max(1, number // 2) - len(under_way))
        return [task for task in waiting if task not in worst[:room]]
