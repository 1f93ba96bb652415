"""What is worth a line in the log, read off the snapshots: failures, generations, and how far the tasks are."""

import logging
from collections import deque

from pilot import host
from pilot.cli.headline import count
from pilot.snapshot import GenerationStatus, Snapshot

#: Between two lines that only count tasks, s.
_COUNTS_EVERY_S = 30.0
_RECENT = 6


class Narrator:
    """Hears snapshots and logs what is new in them.

    Args:
        log: where to.
        before: what was published before this pilot began: old news.
        counts: also say now and then how many tasks are done: where no view shows it.
    """

    def __init__(self, log: logging.Logger, before: Snapshot | None, *, counts: bool) -> None:
        self._log = log
        self._counts = counts
        self._counted_at = host.now()
        self._last_counts = ""
        self._told = set() if before is None else {key for key, _ in self._news(before)}

    def hear(self, snapshot: Snapshot) -> None:
        """Log what is new."""
        for key, line in self._news(snapshot):
            if key not in self._told:
                self._told.add(key)
                self._log.info("%s", line)
        if self._counts and snapshot.at - self._counted_at >= _COUNTS_EVERY_S:
            self._say_counts(snapshot)

    @staticmethod
    def _news(snapshot: Snapshot) -> list[tuple[str, str]]:
        news = [
            (f"failed {entry.task} {entry.why}", f"task {entry.task} ({entry.name}) failed: {entry.why}")
            for entry in reversed(snapshot.failures)
        ]
        for entry in [] if snapshot.campaign is None else snapshot.campaign.generations:
            said = _errors(entry)
            if said:
                news.append((f"errors {entry.stage} {entry.number}", said))
        return news

    def _say_counts(self, snapshot: Snapshot) -> None:
        self._counted_at = snapshot.at
        said = ", ".join(
            f"{count(snapshot, state)} {state}"
            for state in ("done", "running", "ready", "waiting", "failed")
            if count(snapshot, state)
        )
        if said != self._last_counts:
            self._last_counts = said
            self._log.info("tasks: %s", said)


def _errors(entry: GenerationStatus) -> str:
    """What the evaluation of a generation's potential says."""
    parts = []
    if entry.holdout:
        force, energy = 1000.0 * entry.holdout["eps_F"], 1000.0 * entry.holdout["eps_E_per_atom"]
        parts.append(f"ε_F {force:.1f} meV/Å, ε_E {energy:.2f} meV/atom on the holdout")
    if entry.lattice_parameter is not None:
        parts.append(f"a = {entry.lattice_parameter:.4f} Å")
    if not parts:
        return ""
    return f"stage {entry.stage} generation {entry.number}: {', '.join(parts)}"


class RecentLines(logging.Handler):
    """Keeps the latest lines of the log for the view."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_RECENT)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
