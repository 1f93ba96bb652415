"""What is run under faults: a small campaign with real engines, and tasks with known answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

KNOWN = Path(__file__).with_name("known.sh")

#: How often a task may fail by itself: what the faults kill must not use it up, what always fails shall.
CRASHES, TIMEOUTS = 10, 1

CAMPAIGN = """\
[campaign]
name = "chaos"
species = ["Al"]
seed = 7
if_not_converged = "continue"

[crystal]
structure = "fcc"
a = 3.98

[initial]
train = {train}
holdout = 2
repeat = [1, 1, 1]
strain = 0.06
rattle = 0.05
eos_points = 3
kpoints = [2, 2, 2]

[[stages]]
repeat = [1, 1, 1]
temperatures = {temperatures}
kpoints = [2, 2, 2]
max_generations = {generations}

[[stages]]
repeat = [1, 1, 2]
temperatures = {temperatures}
kpoints = [2, 2, 1]
max_generations = {generations}

[explore]
steps = 200
timestep_fs = 2.0
gamma_save = 1.05
gamma_break = 3.0

[select]
limit = 6

[label]
engine = "qe"

[label.qe]
pseudo_dir = "{pseudo}"
pseudopotentials = {{ Al = "Al.pz-vbc.UPF" }}
ecutwfc = 12
smearing = "mv"
degauss = 0.05

[train]
level = 2
min_dist = 1.8
max_dist = 5.0
first_iterations = 60
iterations = 30

[retries]
crashed = {crashes}
out_of_memory = 40
infrastructure = 40
timeout = {timeouts}
bad_input = 0

[run]
silence = "8 s"
soft_stop = "2 s"
drain_wait = "20 s"
mpi = "openmpi4"

[resources.label]
mpi = "openmpi4"
time_request = "3 s"
time_limit = "10 min"

[resources.train]
time_request = "10 s"
[resources.explore]
time_request = "8 s"
[resources.select]
time_request = "5 s"
[resources.evaluate]
time_request = "5 s"
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the campaign is."""

    train: int = 8
    temperatures: tuple[int, ...] = (300, 600)
    generations: int = 2


def pilot_toml(scale: Scale, pseudo: str) -> str:
    """The campaign's pilot.toml; a run of it on two cores takes half a minute."""
    return CAMPAIGN.format(
        train=scale.train,
        temperatures=list(scale.temperatures),
        generations=scale.generations,
        pseudo=pseudo,
        crashes=CRASHES,
        timeouts=TIMEOUTS,
    )


@dataclass(slots=True)
class Known:
    """A task with a known answer.

    Attributes:
        name: unique; ``known.sh`` calls its book so.
        kind: what it does.
        number: what it does it with.
        options: for `pilot add`.
        parents: names of tasks it needs, each with "done" or "ended".
        fate: the state in which it must be at the end.
        asked: what became of the request: "yes" it was accepted, "maybe" nobody knows, "" it was not made.
    """

    name: str
    kind: str
    number: int
    fate: str = "done"
    options: list[str] = field(default_factory=list)
    parents: list[tuple[str, str]] = field(default_factory=list)
    asked: str = ""
    id: int | None = None

    def argv(self, script: Path) -> list[str]:
        """The command."""
        return ["/bin/sh", str(script), self.kind, self.name, str(self.number)]

    def answer(self) -> int | None:
        """What it must print."""
        return self.number * (self.number + 1) // 2 if self.fate == "done" else None


def first_tasks() -> list[Known]:
    """One of each kind, and small trees of them."""
    short = ["--time-request", "3 s"]
    three = ["--ranks", "3", "--nodes", "3", "--mpi", *short]
    return [
        *(Known(f"sum-{k}", "sum", 100 + k, options=short) for k in range(6)),
        *(Known(f"slow-{k}", "slow", 200 + k, options=["--time-request", "8 s"]) for k in range(4)),
        Known("fails", "fails", 0, "failed"),
        Known("flaky-2", "flaky", 2),
        Known("flaky-5", "flaky", 5),
        Known("hang", "hang", 0, "failed", ["--time-limit", "2 s"]),
        Known("stubborn", "stubborn", 7, options=["--time-request", "6 s"]),
        Known("stubborn-hang", "stubborn-hang", 0, "failed", ["--time-limit", "2 s"]),
        Known("flees", "flees", 5),
        Known("cancelled", "cancelled", 0, "cancelled"),
        Known("mpi-2", "mpi", 20, options=["--ranks", "2", "--nodes", "2", "--mpi", *short]),
        Known("mpi-3", "mpi", 30, options=three),
        Known("missing", "no-such-kind", 0, "failed"),
        Known("after-sum", "sum", 50, options=short, parents=[("sum-0", "done"), ("sum-1", "done")]),
        Known("after-fails", "sum", 51, options=short, parents=[("fails", "ended")]),
        Known("doomed", "sum", 52, "waiting", short, [("fails", "done")]),
        Known("after-flaky", "sum", 53, options=short, parents=[("flaky-5", "done"), ("hang", "ended")]),
        Known("after-cancelled", "sum", 54, options=short, parents=[("cancelled", "ended")]),
        Known("after-mpi", "mpi", 55, options=three, parents=[("mpi-2", "done"), ("mpi-3", "ended")]),
    ]


def more_tasks(random: Random, turn: int, known: Sequence[Known]) -> Known:
    """One more, some time during the faults."""
    kind = random.choice(["sum", "slow", "slow", "slow", "flaky", "stubborn", "flees", "mpi", "cancelled", "hang"])
    number = random.randrange(1, 200)
    options, fate = ["--time-request", "3 s"], "done"
    match kind:
        case "flaky":
            number = random.randrange(1, 5)
        case "mpi":
            nodes = random.choice(["2", "3"])
            options += ["--ranks", nodes, "--nodes", nodes, "--mpi"]
        case "cancelled":
            fate = "cancelled"
        case "hang":
            options, fate = ["--time-limit", "2 s"], "failed"
    parents = []
    candidates = [task.name for task in known if task.id is not None and task.fate in {"done", "failed"}]
    if candidates and random.random() < 0.5:
        parents = [(random.choice(candidates), "ended")]
    return Known(f"more-{turn}-{kind}", kind, number, fate, options, parents)
