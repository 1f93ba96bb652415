"""What a campaign must not say of itself, and what it must say, where its sweeps alone decide nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import make_folder
from sqlalchemy import Connection, select, update

from db import dataset, task_table
from db.engine import open_writer
from db.errors import InputError
from db.records import Label
from db.schema import tasks
from db.states import Role
from pilot.campaign import cells, standing
from pilot.campaign.checks import Shown
from pilot.campaign.criteria import Sweep, Turn, decide
from pilot.campaign.driver import Driver
from pilot.campaign.files import Written, write_set
from pilot.campaign.follow_ups import Moment
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol
from pilot.campaign.specs import complete_spec
from pilot.campaign.summary import summarise
from pilot.config import read_config
from pilot.folder import Folder
from pilot.stage_tables import StageTable
from pilot.train_tables import ConvergeTable

CONFIG = """
[campaign]
name = "honest"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.0
[initial]
train = 2
holdout = 1
eos_points = 0
[explore]
clean_sweeps = 1
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
fidelity = "fine"
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[label.fidelity.fine]
arguments = { asap_cutoff = true }
[train]
min_dist = 1.8
level = 6
members = 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path, CONFIG)


@pytest.fixture
def protocol(folder: Folder) -> Protocol:
    found = protocol_of(read_config(folder.config), folder)
    assert found is not None
    return found


@pytest.fixture
def connection(folder: Folder) -> Iterator[Connection]:
    writer = open_writer(folder.database)
    with writer.transaction() as opened:
        yield opened
    writer.close()


def holdout(connection: Connection, protocol: Protocol) -> None:
    """A cell with labels of both fidelities."""
    cell = cells.strained(protocol.stage_cell(0), 0.05, 0.05, 1)
    dataset.add_structures(connection, [dataset.Candidate(cell, "holdout", "a test")], None)
    label = Label(-1.0, ((0.0, 0.0, 0.0),) * len(cell.numbers), None)
    for stage in (0, 1):
        settings = protocol.label_settings(stage)
        dataset.add_label(connection, cell.content_hash(), label, settings=settings, attempt_id=None, at=1.0)


def evaluated(connection: Connection, stage: int, number: int, eps_f: float, a: float) -> None:
    facts = {"evaluation": {"holdout": {"eps_F": eps_f}, "lattice_parameter_dft": a}}
    dataset.note_generation(connection, dataset.add_generation(connection, stage, number, 1.0), facts, at=1.0)


def swept(connection: Connection, stage: int, number: int, of: list[int]) -> None:
    facts = {"sweep": {"wanted": 1, "done": 1, "broke": 0, "selected": 1}, "of": of}
    dataset.note_generation(connection, dataset.add_generation(connection, stage, number, 1.0), facts, at=1.0)


def test_errors_against_labels_of_another_fidelity_are_not_compared(connection: Connection, protocol: Protocol) -> None:
    """The first potential of a fidelity has nothing to be flat against, however like the numbers look."""
    holdout(connection, protocol)
    evaluated(connection, 0, 0, 0.0130, 4.0)
    swept(connection, 0, 1, [0, 0])
    evaluated(connection, 1, 0, 0.0130, 4.1)
    swept(connection, 1, 1, [1, 0])
    decision = standing.decide(connection, protocol, 1)
    assert decision.turn is Turn.SAME_STAGE
    assert decision.failed == ("flat",)
    swept(connection, 1, 2, [1, 0])
    assert standing.decide(connection, protocol, 1).turn is Turn.CONVERGED


def test_the_lattice_parameter_that_is_aimed_at_is_that_of_the_present_labels(
    connection: Connection, protocol: Protocol
) -> None:
    evaluated(connection, 0, 0, 0.0130, 4.0)
    evaluated(connection, 1, 0, 0.0130, 4.1)
    found = summarise(connection, protocol)
    assert found is not None
    assert found.lattice_parameter_dft == 4.1


def test_a_member_that_was_not_trained_begins_from_nothing(
    connection: Connection, protocol: Protocol, folder: Folder
) -> None:
    """Else it would fail in every generation to come, as the one before had left nothing to begin from."""
    driver = Driver(folder, protocol)
    task_table.insert_tasks(connection, driver.begin(connection, 1.0).tasks, 1.0)
    for role in ("train", "holdout"):
        for row in dataset.read_structures(connection, [role], protocol.label_settings(), []):
            label = Label(-1.0, ((0.0, 0.0, 0.0),) * len(row.structure.numbers), None)
            dataset.add_label(
                connection,
                row.structure.content_hash(),
                label,
                settings=protocol.label_settings(),
                attempt_id=None,
                at=1.0,
            )
    row = connection.execute(select(tasks.c.id).where(tasks.c.key == "s0g0-train-m1")).scalar_one()
    (task,) = task_table.read_tasks(connection, [row]).values()
    start = "potentials/s1g00-m1/pot.mtp"
    task.spec.update(start=start, iterations=protocol.train.iterations)  # type: ignore[attr-defined]
    lost = complete_spec(connection, folder, protocol, task, {})
    assert lost["start"] is None
    assert lost["iterations"] == protocol.train.first_iterations
    (folder.root / start).parent.mkdir(parents=True)
    (folder.root / start).touch()
    there = complete_spec(connection, folder, protocol, task, {})
    assert there["start"] == start
    assert there["iterations"] == protocol.train.iterations


STAGE = StageTable(repeat=[1, 1, 1], temperatures=[300.0], max_generations=4)
OFF = Shown(force_error=0.01, lattice_parameter=0.02)
ASKED = ConvergeTable(flat=0.1, lattice_parameter=0.01)


@pytest.mark.parametrize(
    ("selected", "shown", "errors", "hint"),
    [
        (0, OFF, [0.01, 0.01], "sweeps alone will not mend this"),
        (3, OFF, [0.01, 0.01], ""),
        (0, OFF, [0.03, 0.01], ""),
        (0, Shown(), [0.01, None], "never evaluated"),
    ],
)
def test_a_stage_that_sweeps_alone_cannot_end_says_what_would(
    selected: int, shown: Shown, errors: list[float | None], hint: str
) -> None:
    sweeps = [Sweep(1, 1, 0, selected, shown)] * 2
    decision = decide([STAGE], 0, sweeps, 2, "stop", ASKED, errors)
    assert decision.turn is Turn.SAME_STAGE
    assert hint in decision.why
    assert ("pilot import" in decision.why or "pilot retry" in decision.why) is bool(hint)


def test_what_all_members_begin_with_is_written_once_and_anew_when_there_is_more(
    connection: Connection, protocol: Protocol, folder: Folder
) -> None:
    now = dataset.read_generation(connection, dataset.add_generation(connection, 0, 0, 1.0))
    written: Written = {}
    assert write_set(connection, folder, protocol, Role.HOLDOUT, now, written) is None
    holdout(connection, protocol)
    place = write_set(connection, folder, protocol, Role.HOLDOUT, now, written)
    assert place is not None
    file = folder.root / place
    first = file.stat()
    assert write_set(connection, folder, protocol, Role.HOLDOUT, now, written) == place
    assert file.stat().st_ino == first.st_ino
    file.write_text("torn")
    write_set(connection, folder, protocol, Role.HOLDOUT, now, written)
    assert file.stat().st_size == first.st_size
    cell = cells.strained(protocol.stage_cell(0), 0.05, 0.05, 2)
    dataset.add_structures(connection, [dataset.Candidate(cell, "holdout", "one more")], None)
    label = Label(-1.0, ((0.0, 0.0, 0.0),) * len(cell.numbers), None)
    settings = protocol.label_settings()
    dataset.add_label(connection, cell.content_hash(), label, settings=settings, attempt_id=None, at=1.0)
    write_set(connection, folder, protocol, Role.HOLDOUT, now, written)
    assert file.stat().st_size > first.st_size


def test_an_end_is_reckoned_anew_when_other_tolerances_are_asked_for(connection: Connection, folder: Folder) -> None:
    strict, mild = (
        protocol_of(read_config(make_folder(folder.root, one_stage(tolerance)).config), folder)
        for tolerance in (0.001, 0.1)
    )
    assert strict is not None
    assert mild is not None
    holdout(connection, strict)
    evaluated(connection, 0, 0, 0.0130, 4.0)
    swept(connection, 0, 1, [0, 0])
    swept(connection, 0, 2, [0, 0])
    (_, _, last) = dataset.read_generations(connection)
    dataset.note_generation(connection, last.id, {}, outcome=Turn.NOT_CONVERGED, at=1.0)
    for protocol, turn in ((strict, Turn.NOT_CONVERGED), (mild, Turn.CONVERGED), (strict, Turn.NOT_CONVERGED)):
        follow_ups = Driver(folder, protocol).begin(connection, 2.0)
        assert follow_ups.tasks == []
        assert dataset.read_generation(connection, last.id).outcome == turn
    assert "NOT converged" in follow_ups.said[0]


def one_stage(force_error: float) -> str:
    first, _, rest = CONFIG.partition("[[stages]]")
    stage = "[[stages]]\nrepeat = [1, 1, 2]\ntemperatures = [300]\nmax_generations = 2\n[label]"
    return f"{first}{stage}{rest.partition('[label]')[2]}[converge]\nforce_error = {force_error}\n"


def test_a_fidelity_in_use_may_not_become_another(connection: Connection, folder: Folder) -> None:
    """The labels of the fidelity before it are there, but none of this stage's: there would be no holdout."""

    def protocol_with(config: str) -> Protocol:
        found = protocol_of(read_config(make_folder(folder.root, config).config), folder)
        assert found is not None
        return found

    before = protocol_with(CONFIG)
    task_table.insert_tasks(connection, Driver(folder, before).begin(connection, 1.0).tasks, 1.0)
    holdout(connection, before)
    evaluated(connection, 1, 0, 0.0130, 4.1)
    assert Driver(folder, before).begin(connection, 2.0).tasks == []
    with pytest.raises(InputError, match="other settings"):
        Driver(folder, protocol_with(CONFIG.replace("asap_cutoff = true", "asap_cutoff = false"))).begin(
            connection, 2.0
        )


def test_settings_may_not_change_between_planning_and_labelling(connection: Connection, folder: Folder) -> None:
    """A label that is tried again has the settings that it was planned with: new ones would be for nothing."""
    protocol = protocol_of(read_config(folder.config), folder)
    assert protocol is not None
    task_table.insert_tasks(connection, Driver(folder, protocol).begin(connection, 1.0).tasks, 1.0)
    other = CONFIG.replace("[label.fidelity.fine]", "arguments = { asap_cutoff = true }\n[label.fidelity.fine]")
    changed = protocol_of(read_config(make_folder(folder.root, other).config), folder)
    assert changed is not None
    with pytest.raises(InputError, match="planned, with other settings"):
        Driver(folder, changed).begin(connection, 2.0)


def test_a_holdout_of_which_every_label_failed_is_missed(connection: Connection, protocol: Protocol) -> None:
    for number in (1, 2):
        swept(connection, 0, number, [0, 0])
    decision = standing.decide(connection, protocol, 0)
    assert decision.turn is Turn.SAME_STAGE
    assert decision.failed == ("flat",)


def test_errors_on_another_holdout_are_not_compared(connection: Connection, protocol: Protocol) -> None:
    """Labels for the holdout were imported between two generations."""
    for number, configurations in ((0, 4), (1, 104), (2, 104)):
        evaluation = {"holdout": {"eps_F": 0.013, "n": configurations}}
        now = dataset.add_generation(connection, 0, number, 1.0)
        dataset.note_generation(connection, now, {"evaluation": evaluation}, at=1.0)
    swept(connection, 0, 1, [0, 0])
    swept(connection, 0, 2, [0, 1])
    assert standing.decide(connection, protocol, 0).failed == ("flat",)
    swept(connection, 0, 3, [0, 2])
    assert standing.decide(connection, protocol, 0).turn is Turn.NEXT_STAGE


@pytest.mark.parametrize("later", [False, True])
def test_a_study_ends_though_a_point_of_it_has_failed(connection: Connection, folder: Folder, later: bool) -> None:
    """The evaluation of a potential that was not trained waits for good; the failure may come last of all."""
    text = CONFIG.partition("[[stages]]")[0] + "[label]" + CONFIG.partition("\n[label]")[2]
    text = text.replace("members = 2\n", "") + "[study]\nlevels = [4, 6]\n"
    text = text.replace("[label.fidelity.fine]\narguments = { asap_cutoff = true }\n", "")
    study = protocol_of(read_config(make_folder(folder.root, text).config), folder)
    assert study is not None
    driver = Driver(folder, study)
    task_table.insert_tasks(connection, driver.begin(connection, 1.0).tasks, 1.0)
    (now,) = dataset.read_generations(connection)
    assert now.outcome == ""

    def is_now(key: str, *states: str) -> None:
        for state in states:
            connection.execute(update(tasks).where(tasks.c.key == key).values(state=state))

    done, failed = ("ready", "running", "done"), ("ready", "running", "failed")
    is_now("study-l4-1-train", *done)
    is_now("study-l4-1-evaluate", *done)
    if not later:
        driver._end_study(Moment(connection, 2.0), now)
        assert dataset.read_generation(connection, now.id).outcome == ""
    is_now("study-l6-1-train", *failed)
    if later:
        assert driver.begin(connection, 3.0).said == ["1 of 2 points of the study are done"]
    else:
        driver._end_study(Moment(connection, 2.0), now)
    assert dataset.read_generation(connection, now.id).outcome == Turn.STUDIED
