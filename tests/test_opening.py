"""The next job takes the folder over from the one before, on another node, and gives up only for a living one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from folders import make_folder

from db.errors import HeldError
from pilot import host, opening
from pilot.folder import Folder
from pilot.lease import take_lease
from pilot.opening import held_folder

States = Mapping[str, str] | None


class Answers:
    """A SLURM that says of job 7, call by call, whether it is over, and its state."""

    def __init__(self, over: Sequence[bool | None], states: States) -> None:
        self._over = list(over)
        self._states = states

    def __call__(self, environ: object) -> "Answers":
        return self

    def job_is_over(self, job_id: str, restart: int = 0, cluster: str = "") -> bool | None:
        return self._over.pop(0) if len(self._over) > 1 else self._over[0]

    def states(self, job_ids: Sequence[str]) -> States:
        return self._states


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder held by job 7 on another node; we are job 8."""
    folder = make_folder(tmp_path)
    holder = replace(take_lease(folder, "run").holder, host="elsewhere", job_id="7")
    folder.lease.write_text(json.dumps(asdict(holder)))
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setattr(opening, "EVERY_S", 0.01)
    monkeypatch.setattr(opening, "PATIENCE_S", 0.3)
    return folder


@pytest.mark.parametrize("states", [{"7": "COMPLETING"}, {}, None])
def test_a_job_that_is_being_ended_is_waited_for(held: Folder, monkeypatch: pytest.MonkeyPatch, states: States) -> None:
    monkeypatch.setattr(opening, "Slurm", Answers([False, None, True], states))
    with held_folder(held, "run") as lease:
        assert lease.holder.host == host.hostname()


def test_for_a_job_that_runs_nobody_waits(held: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    record: Callable[[float], None] = paused.append
    monkeypatch.setattr(host, "pause", record)
    monkeypatch.setattr(opening, "Slurm", Answers([False], {"7": "RUNNING"}))
    with pytest.raises(HeldError, match="alive"), held_folder(held, "run"):
        pass
    assert paused == []


def test_the_patience_has_an_end(held: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "Slurm", Answers([None], None))
    with pytest.raises(HeldError), held_folder(held, "run"):
        pass


def test_a_pilot_waits_for_a_command_that_has_the_folder_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path)
    borrowed = take_lease(folder, "add")
    monkeypatch.setattr(host, "pause", lambda seconds: borrowed.release())
    with held_folder(folder, "run") as lease:
        assert lease.holder.purpose == "run"


def test_a_command_does_not_wait_for_another_as_it_asks_again_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path)
    take_lease(folder, "add")
    with pytest.raises(HeldError), held_folder(folder, "cancel"):
        pass
