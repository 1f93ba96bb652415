"""Starting is recovering: a real campaign, killed at many random moments, ends as one that nobody disturbed.

Processes are killed for real (SIGKILL): the pilot with all that it is, its launcher, or one of its tasks.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from folders import make_folder
from sqlalchemy import select
from started_pilot import plain_pilot

from db.engine import open_reader
from db.schema import attempts, labels, structures, tasks
from db.states import Verdict
from pilot.folder import Folder

CAMPAIGN = """
[campaign]
name = "short"
species = ["Al"]
seed = 5
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 8
holdout = 3
eos_points = 0
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 1]
temperatures = [300, 600]
max_generations = 2
[explore]
steps = 40
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


def done_keys(folder: Folder) -> set[str]:
    with open_reader(folder.copy) as connection:
        return set(connection.execute(select(tasks.c.key).where(tasks.c.state == "done")).scalars())


def carriers(folder: Folder) -> list[int]:
    """The processes that lie in this folder, or below it."""
    found = []
    for process in psutil.process_iter():
        try:
            here = process.cwd().startswith(str(folder.root)) or str(folder.root) in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if here and process.pid != os.getpid():
            found.append(process.pid)
    return found


def wait_until_nobody_is_left(folder: Folder) -> None:
    deadline = time.monotonic() + 20
    while left := carriers(folder):
        assert time.monotonic() < deadline, [" ".join(psutil.Process(pid).cmdline()) for pid in left]
        time.sleep(0.05)


def strike(pilot: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Kill something of a pilot that is alive."""
    children = psutil.Process(pilot.pid).children(recursive=True)
    launchers = [child for child in children if "pilot.agent.launcher" in " ".join(child.cmdline())]
    running = [child for child in children if child not in launchers]
    kind = rng.choice(["pilot", "pilot", "launcher", "task", "pilot and launcher"])
    victims = {
        "pilot": [pilot.pid],
        "launcher": [child.pid for child in launchers],
        "task": [child.pid for child in running[:1]],
        "pilot and launcher": [pilot.pid, *[child.pid for child in launchers]],
    }[kind]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return kind


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_a_campaign_that_is_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    calm = make_folder(tmp_path / "calm", CAMPAIGN)
    assert plain_pilot(calm).wait(timeout=120) == 0
    expected = done_keys(calm)
    assert len(expected) > 15

    rng = random.Random(20)
    folder = make_folder(tmp_path / "disturbed", CAMPAIGN)
    strikes: Counter[str] = Counter()
    for _ in range(60):
        pilot = plain_pilot(folder)
        try:
            code = pilot.wait(timeout=rng.uniform(0.5, 2.5) if strikes.total() < 14 else 120)
            assert code == 0, folder.log.read_text()[-2000:]
            break
        except subprocess.TimeoutExpired:
            try:
                strikes[strike(pilot, rng)] += 1
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
            if pilot.poll() is None and not psutil.pid_exists(pilot.pid):
                continue
            finish(pilot, rng)
    assert strikes.total() >= 8, strikes
    wait_until_nobody_is_left(folder)
    assert done_keys(folder) == expected
    each_done_once(folder)
    for path in [*calm.root.glob("potentials/*/pot.mtp"), *calm.root.glob("generations/*/train.cfg")]:
        assert (folder.root / path.relative_to(calm.root)).read_bytes() == path.read_bytes(), path


def finish(pilot: subprocess.Popen[bytes], rng: random.Random) -> None:
    """A pilot whose launcher or task was killed goes on; after a while it is killed as well."""
    try:
        pilot.wait(timeout=rng.uniform(0.2, 3.0))
    except subprocess.TimeoutExpired:
        pilot.kill()
        pilot.wait()


def each_done_once(folder: Folder) -> None:
    with open_reader(folder.copy) as connection:
        done = connection.execute(select(attempts.c.task_id).where(attempts.c.verdict == Verdict.DONE)).scalars()
        counted = Counter(done)
        assert set(counted.values()) == {1}
        assert not connection.execute(select(attempts.c.id).where(attempts.c.ended_at.is_(None))).all()
        labelled = Counter(connection.execute(select(labels.c.structure_id)).scalars())
        assert set(labelled.values()) == {1}
        known = connection.execute(select(structures.c.id)).scalars().all()
        assert set(labelled) == set(known)
