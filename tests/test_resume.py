"""What was interrupted goes on, and ends as if nobody had interrupted it: real LAMMPS, real motep, to the last bit."""

import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_mtp import aluminium, explore_spec, train_spec, trained
from folders import make_folder
from scipy.optimize import minimize, rosen, rosen_der
from sqlalchemy import select
from started_pilot import plain_pilot

from db.engine import open_reader
from db.schema import attempts, tasks
from db.states import Verdict
from pilot.folder import Folder
from tasks import checkpoint
from tasks.engines.lammps import ENGINE as LAMMPS
from tasks.engines.motep import ENGINE as MOTEP
from tasks.engines.python_step import PythonStep
from tasks.mtp.evaluations import SLOPE, VALUE, Evaluations
from tasks.protocol import Cause, Exit, Judgement, Work

engine = pytest.mark.engine

PATIENCE_S = 300.0
NVT = explore_spec(steps=3000, gamma_save=0.05, gamma_break=1e9, max_saved=16, checkpoint_every_s=0)
NPT = explore_spec(
    structure=aluminium((2, 4, 4)).to_json(),
    steps=1250,
    gamma_save=0.05,
    gamma_break=1e9,
    max_saved=300,
    pressure=10.0,
    coupling="tri",
    seed=11,
    checkpoint_every_s=0,
)
ONE_ATOM = explore_spec(
    structure=aluminium((1, 1, 1)).to_json(),
    steps=3000,
    gamma_save=0.01,
    gamma_break=1e9,
    pressure=1.0,
    checkpoint_every_s=0,
)
FIT = train_spec(iterations=80, checkpoint_every_s=0)


class Attempt:
    """One attempt of a step, in a process of its own, as an agent would start it."""

    def __init__(self, kind: PythonStep, spec: dict[str, Any], place: Path, previous: "Attempt | None" = None) -> None:
        self.engine = kind
        number = 1 if previous is None else previous.work.attempt_id + 1
        where = place / f"{number:06d}"
        where.mkdir(parents=True)
        before = None if previous is None else previous.work.directory
        self.work: Work = Work(trained().root, where, number, spec, previous=before)
        command = kind.prepare(self.work)
        with (where / "stdout").open("w") as out, (where / "stderr").open("w") as err:
            self.process = subprocess.Popen(
                command.argv, cwd=where, env={**os.environ, **command.env}, stdout=out, stderr=err
            )

    def at(self) -> int:
        """Where its checkpoint is; -1: there is none."""
        try:
            return checkpoint.look(self.work.directory, checkpoint.identity(self.engine.step, self.work.spec)).at
        except checkpoint.UnusableError:
            return -1

    def wait_for_a_checkpoint(self) -> None:
        """Until it has written one of its own."""
        inherited = self.at()
        wait(lambda: self.at() > inherited or self.process.poll() is not None)
        assert self.process.poll() is None, self.said()

    def end_softly(self) -> Judgement:
        """Ask it to stop, and judge it."""
        assert self.engine.stop_softly(self.work)
        assert self.process.wait(PATIENCE_S) == 0, self.said()
        return self.engine.judge(self.work, Exit(code=0, cause=Cause.DRAIN))

    def kill(self, cause: Cause = Cause.LOST) -> Judgement:
        """SIGKILL, and judge it."""
        self.process.kill()
        self.process.wait()
        return self.engine.judge(self.work, Exit(cause=cause))

    def finish(self) -> dict[str, Any]:
        """Let it end by itself; its facts."""
        assert self.process.wait(PATIENCE_S) == 0, self.said()
        judged = self.engine.judge(self.work, Exit(code=0))
        assert judged.verdict is Verdict.DONE, judged
        assert not (self.work.directory / checkpoint.FILE).exists()
        return dict(judged.facts)

    def said(self) -> str:
        return "".join((self.work.directory / name).read_text() for name in ("stdout", "stderr"))

    def files(self) -> dict[str, bytes]:
        """What the campaign reads of it."""
        return {name: (self.work.directory / name).read_bytes() for name in self.engine.writes if name != "active.npz"}


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts without those that tell of time and of interruptions."""
    return {key: value for key, value in facts.items() if key not in {"seconds", "resumed_at"}}


def interrupted_twice(kind: PythonStep, spec: dict[str, Any], place: Path) -> Attempt:
    """The third attempt of three: the first was stopped softly, the second killed."""
    first = Attempt(kind, spec, place)
    first.wait_for_a_checkpoint()
    judged = first.end_softly()
    assert (judged.verdict, judged.resumable) == (Verdict.INTERRUPTED, True)
    second = Attempt(kind, spec, place, first)
    assert not (second.work.directory / "stop").exists()
    second.wait_for_a_checkpoint()
    judged = second.kill()
    assert (judged.verdict, judged.resumable) == (Verdict.INTERRUPTED, True)
    assert judged.facts["checkpoint_at"] > first.at()
    return Attempt(kind, spec, place, second)


@functools.cache
def undisturbed(kind: PythonStep, spec: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Facts and files of one that nobody interrupted, whose clock never says that a checkpoint is due."""
    with tempfile.TemporaryDirectory() as place:
        calm = Attempt(kind, {**json.loads(spec), "checkpoint_every_s": 1e9}, Path(place))
        facts = calm.finish()
        assert facts["resumed_at"] == []
        return facts, calm.files()


@engine
@pytest.mark.parametrize(
    ("kind", "spec"),
    [(LAMMPS, NVT), (LAMMPS, NPT), (LAMMPS, ONE_ATOM), (MOTEP, FIT)],
    ids=["nvt", "npt", "one atom", "training"],
)
def test_what_is_interrupted_ends_as_what_is_not(kind: PythonStep, spec: dict[str, Any], tmp_path: Path) -> None:
    third = interrupted_twice(kind, spec, tmp_path / "disturbed")
    facts = third.finish()
    calm, files = undisturbed(kind, json.dumps(spec))
    assert len(facts["resumed_at"]) == 2
    assert facts["resumed_at"] == sorted(facts["resumed_at"])
    assert plain(facts) == plain(calm)
    assert third.files() == files
    assert f"going on from {'step' if kind is LAMMPS else 'iteration'} {facts['resumed_at'][-1]}" in third.said()


@engine
def test_a_torn_checkpoint_is_refused_in_words_and_the_result_is_the_same(tmp_path: Path) -> None:
    first = Attempt(LAMMPS, NVT, tmp_path / "a")
    first.wait_for_a_checkpoint()
    assert first.kill(Cause.DRAIN).resumable
    file = first.work.directory / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:-1])
    judged = LAMMPS.judge(first.work, Exit(cause=Cause.LOST))
    assert (judged.verdict, judged.resumable) == (Verdict.INTERRUPTED, False)
    second = Attempt(LAMMPS, NVT, tmp_path / "a", first)
    facts = second.finish()
    assert facts["resumed_at"] == []
    assert "starting afresh: the checkpoint of 000001 cannot be used: it is damaged" in second.said()
    calm, files = undisturbed(LAMMPS, json.dumps(NVT))
    assert plain(calm) == plain(facts)
    assert files == second.files()


@engine
def test_another_potential_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("train.cfg", "holdout.cfg"):
        (root / name).write_bytes((trained().root / name).read_bytes())
    work = Work(root, tmp_path, 1, FIT)
    saver = checkpoint.saver("train", FIT, root, tmp_path, ("train",), ("motep",))
    saver.save(3, {}, b"")
    assert MOTEP.judge(work, Exit(cause=Cause.LOST)).resumable
    (root / "train.cfg").write_bytes((root / "holdout.cfg").read_bytes())
    again = checkpoint.saver("train", FIT, root, tmp_path, ("train",), ("motep",))
    assert again.begin() is None
    assert not (tmp_path / checkpoint.FILE).exists()


def made(folder: Path, spec: dict[str, Any]) -> Work:
    """An attempt that has left a checkpoint."""
    folder.mkdir()
    checkpoint.saver("explore", spec, trained().root, folder, (), ()).save(700, {"explorer": {}}, bytes(range(256)))
    return Work(trained().root, folder, 1, spec)


def test_a_checkpoint_is_taken_by_the_same_task_only(tmp_path: Path) -> None:
    first = made(tmp_path / "1", NVT)
    (first.directory / "stop").write_text("")
    for number, spec, taken in (
        (2, NVT, True),
        (3, {**NVT, "checkpoint_every_s": 7}, True),
        (4, {**NVT, "seed": 8}, False),
    ):
        where = tmp_path / str(number)
        where.mkdir()
        LAMMPS.prepare(Work(trained().root, where, number, spec, previous=first.directory))
        note = json.loads((where / "task.json").read_text())["note"]
        assert (where / checkpoint.FILE).exists() is taken
        assert ("another spec" in note) is not taken
        assert not (where / "stop").exists()
    where = tmp_path / "5"
    where.mkdir()
    LAMMPS.prepare(Work(trained().root, where, 5, NVT, previous=tmp_path / "nowhere"))
    assert "there is none" in json.loads((where / "task.json").read_text())["note"]


def test_only_what_was_interrupted_can_go_on(tmp_path: Path) -> None:
    work = made(tmp_path / "1", NVT)
    for end, resumable in (
        (Exit(cause=Cause.DRAIN, signal=9), True),
        (Exit(cause=Cause.LOST), True),
        (Exit(cause=Cause.TIMEOUT, signal=9), False),
        (Exit(cause=Cause.MEMORY, signal=9), False),
        (Exit(cause=Cause.CANCEL, signal=15), False),
        (Exit(signal=11), False),
        (Exit(code=1), False),
    ):
        judged = LAMMPS.judge(work, end)
        assert judged.resumable is resumable, end
        assert (judged.verdict is Verdict.INTERRUPTED) is resumable


def test_no_mutilated_checkpoint_is_read(tmp_path: Path) -> None:
    work = made(tmp_path / "1", NVT)
    whose = checkpoint.identity("explore", NVT)
    data = (work.directory / checkpoint.FILE).read_bytes()
    assert checkpoint.unpack(data, whose).at == 700
    for size in range(len(data)):
        with pytest.raises(checkpoint.UnusableError):
            checkpoint.unpack(data[:size], whose)
    end = data.index(b"\n")
    for place in range(end + 1, len(data)):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(checkpoint.UnusableError):
            checkpoint.unpack(bytes(broken), whose)
    for strange in (b"", b"[]\n", b"7", b"\xff" * 50, b"[" * 100_000, b'{"checkpoint": 1}\n{}\n'):
        with pytest.raises(checkpoint.UnusableError):
            checkpoint.unpack(strange, whose)


def minimised(evaluations: Evaluations, most: int) -> tuple[bytes, int]:
    """Rosenbrock's function from a far point; at most so many evaluations are computed. The result, and how many."""
    computed = 0

    def ask(kind: str, point: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nonlocal computed
        known = evaluations.recall(kind, point)
        if known is None:
            if computed == most:
                raise InterruptedError
            computed += 1
            known = np.atleast_1d(rosen(point) if kind == VALUE else rosen_der(point))
            evaluations.add(kind, point, known)
        return known

    found = minimize(
        lambda x: float(ask(VALUE, x)[0]),
        np.linspace(-1.0, 2.0, 5),
        jac=lambda x: ask(SLOPE, x).copy(),
        method="BFGS",
        options={"maxiter": 60},
    )
    return found.x.tobytes(), computed


def test_a_minimisation_can_be_cut_anywhere() -> None:
    whole, count = minimised(Evaluations(), 10_000)
    assert count > 60
    for cut in range(0, count, 7):
        first = Evaluations()
        with pytest.raises(InterruptedError):
            minimised(first, cut)
        second = Evaluations()
        state, rest = first.state()
        second.restore(json.loads(json.dumps(state)), rest)
        assert minimised(second, 10_000) == (whole, count - cut)


def test_what_was_computed_on_a_computer_that_rounds_differently_is_dropped() -> None:
    _, count = minimised(Evaluations(), 10_000)
    full = Evaluations()
    minimised(full, 10_000)
    state, rest = full.state()
    # the answer to the twentieth question had another last bit there
    numbers = np.frombuffer(rest, float, offset=16 * count).copy()
    place = sum(state["sizes"][:20])
    numbers[place] = np.nextafter(numbers[place], 1e9)
    other = Evaluations()
    other.restore(state, rest[: 16 * count] + numbers.tobytes())
    _, computed = minimised(other, 10_000)
    assert computed > 0
    assert not other.replaying


CAMPAIGN = """
[run]
drain_wait = "1s"
[campaign]
name = "long"
species = ["Al"]
seed = 5
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 4
holdout = 1
eos_points = 0
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
max_generations = 1
[explore]
steps = 5000
gamma_save = 0.5
gamma_break = 1e8
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
radial_basis_size = 4
first_iterations = 5
iterations = 3
"""


def explorations(folder: Folder) -> list[Any]:
    """The attempts at exploring, in order."""
    question = (
        select(attempts.c.verdict, attempts.c.resumable, attempts.c.facts)
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.kind == "explore")
        .order_by(attempts.c.id)
    )
    with open_reader(folder.copy) as connection:
        return list(connection.execute(question))


@engine
def test_an_exploration_goes_on_in_the_next_allocation(tmp_path: Path) -> None:
    calm = make_folder(tmp_path / "calm", CAMPAIGN)
    assert plain_pilot(calm).wait(PATIENCE_S) == 0
    folder = make_folder(tmp_path / "disturbed", CAMPAIGN)
    pilot = plain_pilot(folder)
    wait(lambda: any("run 2000 upto" in log.read_text() for log in folder.root.rglob("log.lammps")))
    pilot.send_signal(signal.SIGTERM)
    pilot.wait(PATIENCE_S)
    assert plain_pilot(folder).wait(PATIENCE_S) == 0
    one, two = explorations(folder)
    (only,) = explorations(calm)
    assert (one.verdict, bool(one.resumable), two.verdict) == (Verdict.INTERRUPTED, True, Verdict.DONE)
    assert two.facts["resumed_at"] == [one.facts["checkpoint_at"]]
    assert 1000 <= one.facts["checkpoint_at"] < 5000
    assert plain(two.facts) == plain(only.facts)
    same = [*calm.root.glob("potentials/*/pot.mtp"), *calm.root.glob("generations/*/*.cfg")]
    assert len(same) > 3
    for path in same:
        assert (folder.root / path.relative_to(calm.root)).read_bytes() == path.read_bytes(), path
