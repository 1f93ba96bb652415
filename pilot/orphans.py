"""Attempts that nobody saw ending: of a dead pilot, or on a lost node."""

from collections.abc import Iterable
from pathlib import Path

from pilot import contents
from pilot.agent.journal import ends_file, read_earlier, read_ends
from pilot.agent.judging import judge
from pilot.agent.messages import Ended
from pilot.memory import Running
from tasks.protocol import Cause, Exit, Work
from tasks.registry import engine


def judge_orphans(root: Path, orphans: Iterable[Running]) -> list[Ended]:
    """What became of them: by what their launchers wrote into their journals, else by their files alone."""
    entries = list(orphans)
    places = {(entry.attempt.pilot_id, entry.attempt.node) for entry in entries}
    seen = {(place[0], id_): end for place in places for id_, end in read_ends(ends_file(root, *place)).items()}
    if any(_name(entry) not in seen for entry in entries):
        # an older copy of the database may have been put in place
        seen = read_earlier(root) | seen
    return [_judged(root, entry, seen.get(_name(entry), Exit(cause=Cause.LOST))) for entry in entries]


def _name(entry: Running) -> tuple[int, int]:
    return entry.attempt.pilot_id, entry.attempt.id


def _judged(root: Path, entry: Running, end: Exit) -> Ended:
    attempt, task = entry.attempt, entry.task
    work = Work(root, root / attempt.directory, attempt.id, task.spec, task.resources)
    judgement = judge(engine(task.engine), work, end)
    return Ended(attempt.id, end, judgement, *contents.count(work.directory))
