"""The protocol as decisions: what is clean, what is enough, what follows."""

from pathlib import Path

import pytest
from folders import make_folder

from db.states import EdgeKind, TaskKind
from pilot.campaign import criteria, planner
from pilot.campaign.criteria import Progress, Sweep, Turn
from pilot.campaign.explorations import exploring_generation
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol, Source
from pilot.config import read_config
from pilot.stage_tables import StageTable

CONFIG = """
[campaign]
name = "test"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 5
holdout = 2
eos_points = 3
[[stages]]
repeat = [1, 1, 2]
temperatures = [100, 500]
pressures = [1.0, 1000.0]
replicas = 2
kpoints = [4, 4, 2]
[[stages]]
repeat = [2, 2, 2]
cell = "conventional"
temperatures = [300]
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
min_dist = 1.8
"""


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    folder = make_folder(tmp_path, CONFIG)
    made = protocol_of(read_config(folder.config), folder)
    assert made is not None
    return made


STAGES = [
    StageTable(repeat=[1, 1, 2], temperatures=[100.0], max_generations=3),
    StageTable(repeat=[2, 2, 2], temperatures=[100.0]),
]
CLEAN = Sweep(wanted=4, done=4, broke=0, selected=1)
BROKEN = Sweep(wanted=4, done=4, broke=1, selected=3)
FAILED = Sweep(wanted=4, done=3, broke=0, selected=0)
NOTHING = Sweep(wanted=4, done=0, broke=0, selected=0)


@pytest.mark.parametrize(
    ("stage", "sweeps", "repeats", "then", "turn"),
    [
        (0, [BROKEN], 1, "stop", Turn.SAME_STAGE),
        (0, [BROKEN, CLEAN], 1, "stop", Turn.NEXT_STAGE),
        (0, [BROKEN, CLEAN], 2, "stop", Turn.SAME_STAGE),
        (0, [BROKEN, CLEAN, CLEAN], 2, "stop", Turn.NEXT_STAGE),
        (0, [CLEAN, BROKEN, CLEAN], 2, "stop", Turn.NOT_CONVERGED),
        (0, [BROKEN, BROKEN, BROKEN], 1, "stop", Turn.NOT_CONVERGED),
        (0, [BROKEN, BROKEN, BROKEN], 1, "continue", Turn.NEXT_STAGE),
        (0, [FAILED], 1, "stop", Turn.SAME_STAGE),
        (0, [NOTHING], 1, "stop", Turn.NOTHING_RAN),
        (1, [CLEAN], 1, "stop", Turn.CONVERGED),
    ],
)
def test_how_the_campaign_goes_on(stage: int, sweeps: list[Sweep], repeats: int, then: str, turn: Turn) -> None:
    assert criteria.decide(STAGES, stage, sweeps, repeats, then).turn is turn


@pytest.mark.parametrize(
    ("total", "done", "failed", "said"),
    [
        (10, 8, 0, Progress.WAIT),
        (10, 9, 0, Progress.ENOUGH),
        (10, 8, 1, Progress.WAIT),
        (10, 9, 1, Progress.ENOUGH),
        (10, 5, 5, Progress.ENOUGH),
        (10, 4, 6, Progress.TOO_MANY_FAILED),
        (1, 0, 1, Progress.ENOUGH),
        (2, 0, 2, Progress.ENOUGH),
        (3, 0, 3, Progress.TOO_MANY_FAILED),
        (1, 0, 0, Progress.WAIT),
        (0, 0, 0, Progress.ENOUGH),
    ],
)
def test_when_the_labels_are_enough(total: int, done: int, failed: int, said: Progress) -> None:
    assert criteria.progress_of_labels(total, done, failed, quorum=0.9, max_failed=0.5) is said


def test_the_initial_generation_labels_then_trains_then_evaluates(protocol: Protocol) -> None:
    generation = planner.initial_generation(protocol)
    roles = [candidate.role for candidate in generation.candidates]
    assert (roles.count("train"), roles.count("holdout"), roles.count("eos")) == (5, 2, 3)
    labels = [task for task in generation.tasks if task.kind is TaskKind.LABEL]
    (train,) = [task for task in generation.tasks if task.kind is TaskKind.TRAIN]
    (evaluation,) = [task for task in generation.tasks if task.kind is TaskKind.EVALUATE]
    assert {parent for parent, _ in train.after} == {task.key for task in labels}
    # a label that fails for good is set aside: it must not hold the fit
    assert {kind for _, kind in train.after} == {EdgeKind.ENDED}
    assert evaluation.after == ((train.key, EdgeKind.DONE),)
    assert len({task.key for task in generation.tasks}) == len(generation.tasks)


def test_explorations_cover_the_grid_with_seeds_of_their_own(protocol: Protocol) -> None:
    source = Source(0, 0, "potentials/s1g00", "generations/s1g00", to_be_trained=True)
    generation = exploring_generation(protocol, 0, 1, source)
    explorations = [task for task in generation.tasks if task.kind is TaskKind.EXPLORE]
    (select,) = [task for task in generation.tasks if task.kind is TaskKind.SELECT]
    grid = {(task.spec["temperature"], task.spec["pressure"]) for task in explorations}
    assert grid == {(100.0, 1.0), (100.0, 1000.0), (500.0, 1.0), (500.0, 1000.0)}
    assert len(explorations) == 8
    seeds = {task.spec["seed"] for task in explorations}
    again = exploring_generation(protocol, 0, 2, source)
    seeds |= {task.spec["seed"] for task in again.tasks if task.kind is TaskKind.EXPLORE}
    assert len(seeds) == 16
    assert {task.after for task in explorations} == {(("s0g0-train", EdgeKind.DONE),)}
    assert {kind for _, kind in select.after} == {EdgeKind.ENDED}


def test_the_same_seed_plans_the_same_campaign(protocol: Protocol) -> None:
    assert planner.initial_generation(protocol) == planner.initial_generation(protocol)


def test_the_second_stage_has_the_cell_of_its_table(protocol: Protocol) -> None:
    assert len(protocol.stage_cell(0).numbers) == 2
    assert len(protocol.stage_cell(1).numbers) == 32


def test_labels_of_other_settings_have_another_name(protocol: Protocol, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "other", CONFIG + "\n[resources.label]\nranks = 2\n")
    same = protocol_of(read_config(folder.config), folder)
    assert same is not None
    assert same.label_settings() == protocol.label_settings()
    folder = make_folder(
        tmp_path / "third", CONFIG.replace("[label.ase]", "[label.ase]\narguments = {asap_cutoff = true}")
    )
    other = protocol_of(read_config(folder.config), folder)
    assert other is not None
    assert other.label_settings() != protocol.label_settings()


def test_where_a_program_lies_does_not_change_what_a_label_says(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "examples/li-small-cell/pilot.toml").read_text()
    text = text.replace("Li.pbesol-s1.UPF", "Li.pbesol-s-kjpaw_psl.0.2.1.UPF").replace('pseudo_dir = "pseudo"', "")
    names = []
    for change in ("", 'command = "/usr/bin/pw.x"\nmixing_beta = 0.3', "conv_thr = 1e-6"):
        (tmp_path / "pilot.toml").write_text(text.replace("[label.qe]", f"[label.qe]\n{change}"))
        config = read_config(tmp_path / "pilot.toml")
        assert config.campaign is not None
        assert config.crystal is not None
        assert config.label is not None
        assert config.train is not None
        names.append(Protocol(config, config.campaign, config.crystal, config.label, config.train, {}).label_settings())
    assert names[0] == names[1] != names[2]
