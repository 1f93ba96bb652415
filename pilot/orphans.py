"""Attempts that nobody saw ending: of a dead pilot, or on a lost node."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pilot import contents
from pilot.agent.journal import ends_file, read_ends
from pilot.agent.judging import judge
from pilot.agent.messages import Ended
from pilot.turn import Running
from tasks.protocol import Cause, Exit, Work
from tasks.registry import engine


def judge_orphans(root: Path, orphans: Iterable[Running]) -> list[Ended]:
    """What became of them: by what their launchers wrote into their journals, else by their files alone."""
    entries = list(orphans)
    places = {(entry.attempt.pilot_id, entry.attempt.node) for entry in entries}
    ends = {place: read_ends(ends_file(root, *place)) for place in places}
    return [_judged(root, entry, ends[entry.attempt.pilot_id, entry.attempt.node]) for entry in entries]


def _judged(root: Path, entry: Running, ends: Mapping[int, Exit]) -> Ended:
    attempt, task = entry.attempt, entry.task
    end = ends.get(attempt.id, Exit(cause=Cause.LOST))
    work = Work(root, root / attempt.directory, attempt.id, task.spec, task.resources)
    judgement = judge(engine(task.engine), work, end)
    return Ended(attempt.id, end, judgement, *contents.count(work.directory))
