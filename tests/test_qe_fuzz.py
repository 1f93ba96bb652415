"""The reader of pw.x's output against outputs that were torn, mixed, mutated: never an error or a wrong number."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ase.build import bulk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.records import Label
from db.states import Verdict
from tasks.engines import qe_output
from tasks.engines.qe import ENGINE
from tasks.engines.qe_numbers import RY, RY_PER_BOHR3
from tasks.protocol import Exit, Work
from tests.qe_runs import needs_pw, run, sheared, work

LITHIUM = {"Li": "Li.pbesol-s-kjpaw_psl.0.2.1.UPF"}
CHANGES = ("lose", "double", "copy", "exchange", "empty", "foreign", "cut", "tear")
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Real:
    """The output of a real run, and what it says."""

    text: str
    lines: tuple[str, ...]
    label: Label


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Two atoms, with smearing and stress."""
    return real_run(tmp_path_factory.mktemp("fuzz") / "a", work(tmp_path_factory.mktemp("fuzz") / "a", sheared()))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """The same crystal with its atoms elsewhere."""
    atoms = sheared()
    atoms.rattle(0.2, seed=5)
    folder = tmp_path_factory.mktemp("fuzz") / "b"
    return real_run(folder, work(folder, atoms, attempt=18))


def real_run(folder: Path, task: Work) -> Real:
    judgement = ENGINE.judge(task, run(task))
    assert judgement.verdict is Verdict.DONE, judgement
    assert judgement.label is not None
    text = (task.directory / "pw.out").read_text()
    return Real(text, tuple(text.splitlines(keepends=True)), judgement.label)


def label_of(text: str) -> Label | None:
    """What would be taken from this text, if anything."""
    report = qe_output.read(text, "", 2)
    return report.label if report.complete else None


@needs_pw
@FUZZ
@given(data=st.data())
def test_no_loss_doubling_or_exchange_of_lines_gives_a_wrong_number(real, other, data):
    lines = list(real.lines)
    for _ in range(data.draw(st.integers(1, 3), "changes")):
        # near the numbers half of the time
        anywhere, near = st.integers(0, len(lines) - 1), st.integers(len(lines) * 3 // 5, len(lines) - 1)
        at, to = data.draw(st.one_of(anywhere, near), "at"), data.draw(st.one_of(anywhere, near), "to")
        match data.draw(
            st.sampled_from(["lose", "double", "copy", "exchange", "empty", "foreign", "cut", "tear"]), "how"
        ):
            case "lose":
                del lines[at : at + data.draw(st.integers(1, 6), "lines")]
            case "double":
                lines.insert(at, lines[at])
            case "copy":
                lines.insert(to, lines[at])
            case "exchange":
                lines[at], lines[to] = lines[to], lines[at]
            case "empty":
                lines[at] = "\n"
            case "foreign":
                lines[at] = other.lines[min(to, len(other.lines) - 1)]
            case "cut":
                # two lines become one
                lines[at] = lines[at].rstrip("\n")
            case "tear":
                lines[at] = lines[at][: data.draw(st.integers(0, 80), "column")] + "\n"
        if len(lines) < 2:
            return
    label = label_of("".join(lines))
    # a line that was torn in a number, or is another run's, is noticed by what is printed beside it, to its last digits
    assert label is None or is_close(label, real.label)


@needs_pw
@FUZZ
@given(data=st.data())
def test_no_cut_gives_a_label(real, data):
    end = real.text.index("JOB DONE") + len("JOB DONE")
    cut = data.draw(st.integers(0, end - 1))
    assert label_of(real.text[:cut]) is None
    # nor does one whose beginning is lost, unless what is left has all that counts
    label = label_of(real.text[cut:])
    assert label in (None, real.label)


@needs_pw
@FUZZ
@given(data=st.data())
def test_two_runs_in_one_file_are_never_mixed(real, other, data):
    at = data.draw(st.integers(0, len(real.lines)))
    begin = next(i for i, line in enumerate(other.lines) if "Program PWSCF" in line)
    upto = data.draw(st.integers(begin + 1, len(other.lines)))
    mixed = [*real.lines[:at], *other.lines[:upto], *real.lines[at:]]
    label = label_of("".join(mixed))
    assert label is None
    # one after the other, the first one torn: the title is that of the first, and nothing of the second is taken
    assert label_of("".join([*real.lines[: max(at, begin + 1)], *other.lines])) is None


@needs_pw
@FUZZ
@given(data=st.data())
def test_a_changed_letter_changes_no_number_unnoticed(real, data):
    at = data.draw(st.integers(0, len(real.text) - 1))
    letter = data.draw(st.one_of(st.sampled_from("0123456789 .-*\n!=%"), st.characters()))
    text = real.text[:at] + letter + real.text[at + 1 :]
    label = label_of(text)
    if label is None:
        return
    hit = real.text[real.text.rfind("\n", 0, at) + 1 : at + 1]
    if "force =" in hit and letter in "0123456789 .-":
        # a digit of a force itself: the total force has six places, and no sign
        label = replace(label, forces=real.label.forces)
    assert is_close(label, real.label)


@FUZZ
@given(out=st.text(), err=st.text(), atoms=st.integers(0, 3))
def test_no_text_makes_it_raise(out, err, atoms):
    assert qe_output.read(out, err, atoms).complete is False


PIECES = st.sampled_from(
    """ Title:
pilot attempt 17
!    total energy = -1.0 Ry
!!   total energy = 1e999 Ry
RULE
     Forces acting on atoms (cartesian axes, Ry/au):
  atom 1 type 1 force = 0.1 -0.2-0.3
JOB DONE
  total   stress  (Ry/bohr**3)   (kbar)  P= 1e400
 1 2 3 1 2 3
 9D999 0 0 *** *** ***
 estimated scf accuracy < 1.E-12 Ry
 convergence threshold = 1.0E-9
Total force = 1D308

     PWSCF  :  1d 2h 3m CPU 9d99m WALL
 xc contribution = 1D200 Ry
Program PWSCF v.6.7
""".replace("RULE", 78 * "%").splitlines(keepends=True)
)


@FUZZ
@given(pieces=st.lists(PIECES, max_size=25), atoms=st.integers(0, 2))
def test_no_heap_of_its_own_words_makes_it_raise_or_gives_what_is_no_number(pieces, atoms):
    report = qe_output.read("".join(pieces), "".join(reversed(pieces)), atoms)
    if report.label is not None:
        numbers = [report.label.energy, *(report.label.stress or ()), *(x for row in report.label.forces for x in row)]
        assert all(abs(x) < 1e300 for x in numbers)
        assert len(report.label.forces) == atoms


@needs_pw
def test_what_is_printed_twice_agrees_for_paw_too(tmp_path):
    """The one-center terms belong to the sum; else each such label would be refused."""
    atoms = bulk("Li", a=3.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    task = work(tmp_path / "a", atoms, ecutwfc=20, kspacing=2.0, pseudopotentials=LITHIUM)
    task = replace(task, spec={**task.spec, "species": ["Li"]})
    end = run(task)
    assert "one-center paw contrib." in (task.directory / "pw.out").read_text()
    assert ENGINE.judge(task, end).verdict is Verdict.DONE
    # and it is looked at
    path = task.directory / "pw.out"
    before = path.read_text()
    wrong = before.replace("!    total energy              =     -", "!    total energy              =     -9")
    assert wrong != before
    path.write_text(wrong)
    judgement = ENGINE.judge(task, Exit(code=0))
    assert judgement.verdict is Verdict.CRASHED
    assert "terms add up" in judgement.reason


def is_close(label: Label, wanted: Label) -> bool:
    """To the digits that are printed twice: 2e-6 Ry, 0.02 kbar; forces to the last digit."""
    assert label.stress is not None
    assert wanted.stress is not None
    stress = max(abs(x - y) for x, y in zip(label.stress, wanted.stress, strict=True))
    return (
        abs(label.energy - wanted.energy) <= 2.1e-6 * RY
        and stress <= 3e-7 * RY_PER_BOHR3
        and label.forces == wanted.forces
    )
