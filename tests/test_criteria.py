"""When a stage has converged: clean sweeps, a flat force error, and the physics that was asked for."""

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.campaign.checks import NOTHING_SHOWN, Shown, checks_of, shown_by
from pilot.campaign.criteria import Decision, Sweep, Turn, decide
from pilot.stage_tables import StageTable
from pilot.train_tables import ConvergeTable

STAGES = [
    StageTable(repeat=[1, 1, 1], temperatures=[300.0], max_generations=4),
    StageTable(repeat=[2, 2, 2], temperatures=[300.0], max_generations=4),
]
GOOD = Shown(0.0129, 0.001, -0.004, 1.5, 0.0005, 3.0)
ALL = ConvergeTable(
    flat=0.1, force_error=0.02, energy_error=0.002, lattice_parameter=0.01, bulk_modulus=2.0, curve=0.001, elastic=5.0
)


def clean(shown: Shown = GOOD) -> Sweep:
    return Sweep(wanted=4, done=4, broke=0, selected=0, shown=shown)


def broken(shown: Shown = GOOD) -> Sweep:
    return Sweep(wanted=4, done=4, broke=1, selected=3, shown=shown)


def decided(
    sweeps: list[Sweep],
    asked: ConvergeTable = ALL,
    errors: list[float | None] | None = None,
    *,
    stage: int = 0,
    then: str = "stop",
) -> Decision:
    return decide(STAGES, stage, sweeps, 2, then, asked, errors)


def test_a_stage_that_fulfils_all_goes_on_and_says_so_with_numbers() -> None:
    decision = decided([clean(), clean()], errors=[0.0131, 0.0129])
    assert decision.turn is Turn.NEXT_STAGE
    assert decision.failed == ()
    assert decision.why == (
        "stage 1 has converged: 2 full sweeps under γ_break; ε_F 13.1 → 12.9 meV/Å, flat (1.53 % ≤ 10 %); "
        "ε_F on the holdout 12.9 meV/Å ≤ 20 meV/Å; ε_E on the holdout 1 meV/atom ≤ 2 meV/atom; "
        "lattice parameter off by 0.004 Å ≤ 0.01 Å; bulk modulus off by 1.5 GPa ≤ 2 GPa; "
        "energy-volume curve off by 0.5 meV/atom ≤ 1 meV/atom; elastic constants off by 3 GPa ≤ 5 GPa"
    )
    assert decided([clean(), clean()], errors=[0.0131, 0.0129], stage=1).turn is Turn.CONVERGED


@pytest.mark.parametrize(
    ("change", "errors", "failed", "words"),
    [
        ({}, [0.0147, 0.0129], "flat", "ε_F 14.7 → 12.9 meV/Å, not flat (12.2 % > 10 %)"),
        ({}, [0.0129, 0.0147], "flat", "ε_F 12.9 → 14.7 meV/Å, not flat (12.2 % > 10 %)"),
        ({}, [0.0129], "flat", "not yet known to be flat"),
        ({}, [], "flat", "not yet known to be flat"),
        ({}, [None, 0.0129], "flat", "not yet known to be flat"),
        ({}, [0.0129, math.nan], "flat", "not yet known to be flat"),
        ({"force_error": 0.021}, [0.02, 0.02], "force_error", "ε_F on the holdout 21 meV/Å > 20 meV/Å"),
        ({"energy_error": 0.003}, [0.02, 0.02], "energy_error", "3 meV/atom > 2 meV/atom"),
        ({"lattice_parameter": -0.013}, [0.02, 0.02], "lattice_parameter", "off by 0.013 Å > 0.01 Å"),
        ({"lattice_parameter": 0.010001}, [0.02, 0.02], "lattice_parameter", "off by 0.010001 Å > 0.01 Å"),
        ({"bulk_modulus": None}, [0.02, 0.02], "bulk_modulus", "bulk modulus asked for but not known"),
        ({"curve": 0.0011}, [0.02, 0.02], "curve", "1.1 meV/atom > 1 meV/atom"),
        ({"elastic": math.inf}, [0.02, 0.02], "elastic", "elastic asked for but not known"),
    ],
)
def test_each_thing_that_is_not_fulfilled_is_named(
    change: dict[str, float | None], errors: list[float | None], failed: str, words: str
) -> None:
    shown = Shown(**{f.name: getattr(GOOD, f.name) for f in fields(Shown)} | change)
    decision = decided([clean(), clean(shown)], errors=errors)
    assert decision.turn is Turn.SAME_STAGE
    assert decision.failed == (failed,)
    assert words in decision.why
    assert "2 full sweeps under γ_break" in decision.why


def test_the_sweep_before_may_be_of_an_earlier_stage() -> None:
    asked = ConvergeTable(flat=0.1)
    assert decide(STAGES, 1, [clean()], 1, "stop", asked, [0.2, 0.0130, 0.0129]).turn is Turn.CONVERGED
    assert decide(STAGES, 1, [clean()], 1, "stop", asked, [0.0130]).turn is Turn.SAME_STAGE


def test_without_a_holdout_flatness_is_not_asked() -> None:
    assert decided([clean(), clean()], ConvergeTable(), None).turn is Turn.NEXT_STAGE
    assert decided([clean(), clean()], ConvergeTable(), []).turn is Turn.SAME_STAGE
    assert decided([clean(), clean()], ConvergeTable(flat=0.0), []).turn is Turn.NEXT_STAGE


def test_what_the_potential_before_had_shown_does_not_count() -> None:
    asked = ConvergeTable(flat=0.0, lattice_parameter=0.01)
    off = Shown(lattice_parameter=0.5)
    assert decided([clean(off), clean()], asked).turn is Turn.NEXT_STAGE
    assert decided([clean(), clean(off)], asked).failed == ("lattice_parameter",)


def test_a_record_from_before_there_were_checks_still_decides() -> None:
    old = [Sweep(4, 4, 1, 3), Sweep(4, 4, 0, 0), Sweep(4, 4, 0, 0)]
    assert decide(STAGES, 0, old, 1, "stop").turn is Turn.NEXT_STAGE
    decision = decide(STAGES, 0, old, 1, "stop", ConvergeTable(), [None, None, None])
    assert decision.turn is Turn.SAME_STAGE
    assert decision.failed == ("flat",)


def test_the_last_generation_names_all_that_failed() -> None:
    asked = ConvergeTable(flat=0.1, lattice_parameter=0.001)
    sweeps = [broken(), broken(), clean(), broken()]
    decision = decided(sweeps, asked, [0.02, 0.01])
    assert decision.turn is Turn.NOT_CONVERGED
    assert decision.failed == ("clean_sweeps", "flat", "lattice_parameter")
    assert "stage 1 has NOT converged after 4 generations, not fulfilled: clean sweeps, flat, lattice" in decision.why
    assert "1 of 4 explorations broke" in decision.why
    onward = decided(sweeps, asked, [0.02, 0.01], then="continue")
    assert onward.turn is Turn.NEXT_STAGE
    assert onward.failed == decision.failed
    assert onward.why.endswith("going on with the next stage")


def test_what_a_potential_shows_is_read_from_the_facts_of_its_evaluation() -> None:
    facts = {
        "holdout": {"eps_F": 0.02, "eps_E_per_atom": 0.001, "eps_E": 0.004},
        "lattice_parameter": 4.01,
        "lattice_parameter_dft": 4.0,
        "bulk_modulus": 39.0,
        "bulk_modulus_dft": 40.0,
        "curve_difference": 0.0002,
        "elastic_difference": 7.0,
    }
    shown = shown_by(facts)
    assert (shown.force_error, shown.energy_error, shown.curve, shown.elastic) == (0.02, 0.001, 0.0002, 7.0)
    assert shown.lattice_parameter == pytest.approx(0.01)
    assert shown.bulk_modulus == pytest.approx(-1.0)
    assert shown_by(facts | {"bulk_modulus_at_reference": 40.5}).bulk_modulus == pytest.approx(0.5)
    assert shown_by({}) == NOTHING_SHOWN == shown_by({"holdout": None, "lattice_parameter": 4.0})


NUMBERS = st.one_of(st.none(), st.floats(0.0, 10.0), st.sampled_from([math.nan, math.inf, -0.5]))
SHOWN = st.builds(Shown, *[NUMBERS] * 6)
POSITIVE = st.floats(1e-6, 20.0)
ASKED = st.builds(
    ConvergeTable,
    flat=st.floats(0.0, 1.0),
    **{name: st.one_of(st.none(), POSITIVE) for name in [f.name for f in fields(Shown) if f.name != "holdout"]},
)
SERIES = st.one_of(st.none(), st.lists(NUMBERS, max_size=4))


@given(SHOWN, SERIES, ASKED, st.floats(1.0, 100.0))
def test_more_tolerance_never_fails_what_had_passed(
    shown: Shown, errors: list[float | None] | None, asked: ConvergeTable, factor: float
) -> None:
    wider = {n: v if v is None else v * factor for n, v in asked.model_dump().items()}
    before = {check.name: check.passed for check in checks_of(shown, errors, asked)}
    after = {check.name: check.passed for check in checks_of(shown, errors, ConvergeTable(**wider))}
    assert after.keys() == before.keys()
    assert all(after[name] for name, passed in before.items() if passed)


@given(st.lists(st.booleans(), min_size=1, max_size=4), SHOWN, SERIES, ASKED)
def test_a_stage_converges_only_when_nothing_failed(
    breaks: list[bool], shown: Shown, errors: list[float | None] | None, asked: ConvergeTable
) -> None:
    decision = decided([broken(shown) if b else clean(shown) for b in breaks], asked, errors)
    assert (decision.turn is Turn.NEXT_STAGE) == (decision.failed == ())
    assert ("clean_sweeps" in decision.failed) == (len(breaks) < 2 or any(breaks[-2:]))
    assert decision.why
    # nothing that is asked for is passed over in silence
    assert decision.why.count(";") >= len(checks_of(shown, errors, asked))


@given(SHOWN, ASKED)
def test_what_is_not_known_never_passes(shown: Shown, asked: ConvergeTable) -> None:
    passed = {check.name for check in checks_of(shown, None, asked) if check.passed}
    known = {f.name for f in fields(Shown) if (v := getattr(shown, f.name)) is not None and math.isfinite(v)}
    assert passed <= known
