"""The chaos runner: a real campaign on a real SLURM cluster of three nodes, while faults strike.

    python tests/chaos/chaos.py [--faults 200] [--seed 1] [--round 40] [--only NAME,NAME] [--root FOLDER] [--small]

Each round is a new campaign of the same seed under other faults, which is carried to its end and then checked
(:mod:`checker`). As root all of it lives in namespaces of its own: its processes, its /dev/shm and its mounts end
with it. docs/chaos.md tells more.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "slurm")]

from checker import check  # noqa: E402
from cluster import Cluster, missing_programs, start_cluster  # noqa: E402
from faults import FAULTS, Fault  # noqa: E402
from field import PILOT, Field, make_field  # noqa: E402
from work import Known, Scale, first_tasks, more_tasks, pilot_toml  # noqa: E402

INSIDE = "CHAOS_INSIDE"
#: seconds that the calm after the last fault may last
CALM_S = 420.0
#: seconds for which a job may run without any process of ours
EMPTY_S = 20.0
#: seconds between two looks
TICK_S = 0.25


@dataclass(slots=True)
class Plan:
    """Which faults strike when; all of it follows from the seed.

    Attributes:
        mean_s: seconds between two faults, on average.
    """

    count: int
    random: Random
    faults: Sequence[Fault]
    mean_s: float
    deck: list[Fault] = field(default_factory=list)

    def draw(self) -> Fault:
        """The next: all kinds come before one comes again."""
        if not self.deck:
            self.deck = list(self.faults)
            self.random.shuffle(self.deck)
        return self.deck.pop()

    def gap_s(self) -> float:
        return self.random.uniform(0.3, 2 * self.mean_s - 0.3)


@dataclass(slots=True)
class Round:
    """What came of one round."""

    number: int
    seed: int
    seconds: float
    struck: Counter[str]
    jobs: int
    wrong: list[str]
    counts: dict[str, Any]


def run_round(field: Field, plan: Plan) -> Counter[str]:
    """Strike, keep the campaign going, then let it come to its end in peace."""
    struck: Counter[str] = Counter()
    for task in first_tasks():
        field.add_in_process(task)
    next_at = time.monotonic() + 3.0 + plan.gap_s()
    pending, misses = None, 0
    while struck.total() < plan.count:
        keep_going(field)
        if time.monotonic() < next_at:
            time.sleep(TICK_S)
            continue
        if pending is None:
            pending, misses = plan.draw(), 0
        choice = plan.random.random()
        victim = pending.strike(field, choice)
        if victim:
            field.note("fault", n=struck.total() + 1, fault=pending.name, victim=victim, choice=round(choice, 4))
            struck[pending.name] += 1
            pending = None
            next_at = time.monotonic() + plan.gap_s()
        else:
            misses += 1
            next_at = time.monotonic() + 0.3
            if misses > 10:
                pending = None
    come_to_the_end(field)
    return struck


def keep_going(field: Field) -> None:
    """Repairs, the next allocation, what users do meanwhile."""
    field.repair()
    queue = field.queue()
    end_empty_job(field, queue)
    waits = field.calm and nobody_needs_another(field)
    if (not queue and not waits) or (len(queue) == 1 and not field.calm and field.random.random() < 0.005):
        field.submit()
    if field.user is None or not field.user.is_alive():
        field.user = threading.Thread(target=be_a_user, args=(field, field.random.random()), daemon=True)
        field.user.start()


def end_empty_job(field: Field, queue: Mapping[str, str]) -> None:
    """A job in which nobody is left (its first node is dead, and so are the others' ranks) would last to its end."""
    running = [job for job, state in queue.items() if state == "RUNNING"]
    if not running or field.census().everyone():
        field.empty_since = None
        return
    field.empty_since = field.empty_since or time.monotonic()
    if time.monotonic() - field.empty_since > EMPTY_S:
        field.slurm("scancel", *running)
        field.note("an empty job is cancelled", jobs=running)
        field.empty_since = None


def nobody_needs_another(field: Field) -> bool:
    """Whether processes of the last allocation are still about to end."""
    return bool(field.census().everyone()) and not field.census().tasks


def be_a_user(field: Field, choice: float) -> None:
    """One thing that a user does; then a pause."""
    to_be_cancelled = [task for task in not_yet_cancelled(field) if field.id_of(task) is not None]
    if to_be_cancelled and (choice < 0.3 or field.calm):
        task = to_be_cancelled[0]
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = field.pilot("cancel", str(task.id))
            said = (done.stdout + done.stderr).strip()[-200:]
            field.note("cancel", task=task.name, code=done.returncode, said=said)
            if done.returncode == 0 or "ended already" in said:
                field.cancelled.add(task.name)
    elif not field.calm and choice < 0.9:
        field.turn += 1
        field.add(more_tasks(field.random, field.turn, field.known))
    if not field.calm:
        time.sleep(4.0)


def not_yet_cancelled(field: Field) -> list[Known]:
    """Tasks that the user wants to be cancelled, and that may be there."""
    return [
        task for task in field.known if task.fate == "cancelled" and task.asked and task.name not in field.cancelled
    ]


def come_to_the_end(field: Field) -> None:
    """No more faults: all that was asked for comes to its end."""
    field.calm = True
    field.note("calm")
    deadline = time.monotonic() + CALM_S
    jobs_before = field.jobs
    while time.monotonic() < deadline:
        over = not field.queue() and not field.census().everyone()
        if over and field.jobs > jobs_before and nothing_left(field):
            break
        keep_going_calmly(field)
        time.sleep(TICK_S)
    else:
        field.note("it does not come to its end")
    if field.user is not None:
        field.user.join(60)


def keep_going_calmly(field: Field) -> None:
    """As before, but without more work; nodes that are dead come back first."""
    if field.repairs:
        field.repair(everything=not any(entry.at < time.monotonic() + 15 for entry in field.repairs))
        if field.queue() or field.repairs:
            return
    keep_going(field)


def nothing_left(field: Field) -> bool:
    """Whether the database, which nobody writes now, has nothing that could run."""
    if field.user is not None and field.user.is_alive():
        return False
    if any(task.asked == "yes" for task in not_yet_cancelled(field)):
        return False
    try:
        with closing(sqlite3.connect(f"file:{field.state / 'pilot.db'}?mode=ro", uri=True)) as database:
            rows = dict(database.execute("SELECT state, count(*) FROM tasks GROUP BY state"))
            doomed = database.execute(
                "SELECT count(DISTINCT child) FROM edges JOIN tasks c ON c.id = child JOIN tasks p ON p.id = parent "
                "WHERE c.state = 'waiting' AND edges.kind = 'done' AND p.state IN ('failed', 'cancelled')"
            ).fetchone()[0]
    except sqlite3.Error:
        return False
    return not rows.get("ready") and not rows.get("running") and rows.get("waiting", 0) == doomed


def reference_run(root: Path, toml: str) -> Path:
    """The same campaign undisturbed, on this machine."""
    folder = root / "reference"
    folder.mkdir(parents=True)
    (folder / "pilot.toml").write_text(toml)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    with (root / "reference.out").open("w") as output:
        subprocess.run(
            [*PILOT, "run", "--plain", "--cores", "2", "--folder", str(folder)],
            env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True,
        )  # fmt: skip
    return folder


def chaos(given: argparse.Namespace, root: Path) -> list[Round]:
    """All rounds."""
    scale = Scale(train=6, temperatures=(300,), generations=1) if given.small else Scale()
    toml = pilot_toml(scale, given.pseudo)
    begun = time.monotonic()
    reference = given.reference or reference_run(root, toml)
    say(f"the undisturbed run took {time.monotonic() - begun:.0f} s")
    names = [name.strip() for name in given.only.split(",")] if given.only else []
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    cluster = start_cluster(root / "c", nodes=3, cpus=8)
    rounds: list[Round] = []
    try:
        left, number = given.faults, 0
        while left > 0:
            number += 1
            count = min(left, given.round)
            seed = given.seed + number - 1
            done = one_round(given, cluster, root, toml, reference, number, seed, count, chosen)
            rounds.append(done)
            left -= count
            say_round(done)
    finally:
        cluster.stop()
    return rounds


def one_round(
    given: argparse.Namespace,
    cluster: Cluster,
    root: Path,
    toml: str,
    reference: Path,
    number: int,
    seed: int,
    count: int,
    chosen: Sequence[Fault],
) -> Round:
    """A campaign from beginning to end, and what the checker says of it."""
    begun = time.monotonic()
    field = make_field(cluster, root / f"r{number}", toml, seed)
    if os.environ.get(INSIDE):
        (field.root / "private").touch()
    own_disk = bool(os.environ.get(INSIDE)) and number % 2 == 0
    if own_disk:
        field.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(field.state)], check=True)
    plan = Plan(count, Random(seed * 7919 + 1), chosen, given.mean)
    try:
        struck = run_round(field, plan)
        field.write_plan()
        cluster.heal()
        report = check(field.root, reference)
    finally:
        field.repair(everything=True)
        if own_disk:
            shutil.copytree(field.state, field.root / "state-copy", ignore=shutil.ignore_patterns("filler"))
            subprocess.run(["umount", "-l", str(field.state)], check=False)
            shutil.copytree(field.root / "state-copy", field.state, dirs_exist_ok=True)
    done = Round(number, seed, time.monotonic() - begun, struck, field.jobs, report.wrong, report.counts)
    (field.root / "report.json").write_text(
        json.dumps({"seed": seed, "struck": struck, "wrong": report.wrong, "counts": report.counts}, indent=1)
    )
    if not report.wrong and not given.keep:
        shutil.rmtree(field.root)
    return done


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def say_round(done: Round) -> None:
    say(
        f"round {done.number} (seed {done.seed}): {done.struck.total()} faults, {done.jobs} jobs, "
        f"{done.seconds:.0f} s, {done.counts}"
    )
    for wrong in done.wrong:
        say(f"  WRONG: {wrong}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real campaign on a real cluster, while faults strike.")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next has the next")
    parser.add_argument("--round", type=int, default=40, help="faults in one campaign")
    parser.add_argument("--mean", type=float, default=5.0, help="seconds between two faults")
    parser.add_argument("--only", default="", help="names of faults, with commas between")
    parser.add_argument("--root", type=Path, help="where all is written; must not be there")
    parser.add_argument("--reference", type=Path, help="an undisturbed run of the same campaign")
    parser.add_argument("--small", action="store_true", help="a smaller campaign")
    parser.add_argument("--keep", action="store_true", help="keep the folders of good rounds too")
    parser.add_argument("--pseudo", default="/usr/share/espresso/pseudo", help="where Al.pz-vbc.UPF is")
    return parser.parse_args(words)


def inside_namespaces(words: Sequence[str]) -> int | None:
    """Run ourselves again in namespaces of our own; None where that cannot be had."""
    if os.environ.get(INSIDE) or os.geteuid() != 0:
        return None
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        return None
    line = 'mount -t tmpfs tmpfs /dev/shm && "$@"; exit $?'
    # the shell is process 1 there: it takes up the orphans
    argv = [*unshare, "/bin/sh", "-c", line, "sh", sys.executable, str(HERE / "chaos.py"), *words]
    return subprocess.run(argv, env={**os.environ, INSIDE: "1"}, check=False).returncode


def main(words: Sequence[str]) -> int:
    given = arguments(words)
    if missing := missing_programs():
        say(f"no SLURM here: {', '.join(missing)} not installed")
        return 2
    code = inside_namespaces(words)
    if code is not None:
        return code
    root = (given.root or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    root.mkdir(parents=True, exist_ok=True)
    say(f"all is in {root}")
    rounds = chaos(given, root)
    kinds = sum((done.struck for done in rounds), Counter[str]())
    say(f"{kinds.total()} faults of {len(kinds)} kinds in {len(rounds)} rounds")
    for name, count in sorted(kinds.items()):
        print(f"    {count:4d}  {name}")
    bad = [done for done in rounds if done.wrong]
    for done in bad:
        say(f"WRONG in round {done.number}: make chaos SEED={done.seed} FAULTS={done.struck.total()} repeats it")
    if not bad and given.root is None and not given.keep:
        shutil.rmtree(root, ignore_errors=True)
    say("all is as it must be" if not bad else f"{len(bad)} rounds have gone wrong; see {root}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
