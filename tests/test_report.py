"""What a report computes: turns, γ, histograms, shares of the machine's time. No file, no picture."""

import math
from typing import Any

import pytest

from db.dataset import Generation
from pilot.report import gamma, learning, machine, parity, physics, provenance, questions, study, summary
from pilot.report.drawing import axes, inlined, render
from pilot.report.figure import Data, Figure, number, scaled
from pilot.report.records import Done, LabelSettings, Ran, Records
from pilot.report.turns import Gamma, Turn, pooled, stage_starts, turns


def ran(**more: Any) -> Ran:
    given: dict[str, Any] = {
        "task": 1,
        "kind": "label",
        "size": 2,
        "generation": 1,
        "pilot": 1,
        "shares": (("a", 2),),
        "started_at": 0.0,
        "ended_at": 3600.0,
        "verdict": "done",
        "reason": "",
        "resumable": False,
        "wall_s": 3600.0,
    }
    return Ran(**(given | more))


def done(key: str, generation: int | None = 1, **facts: Any) -> Done:
    return Done(1, key, key, generation, facts, "runs/000/000001", "", 2, 10.0)


def turn(count: int, stage: int = 1, **more: Any) -> Turn:
    given: dict[str, Any] = {
        "count": count,
        "id": count + 1,
        "stage": stage,
        "number": count,
        "outcome": "",
        "why": "",
        "gamma": Gamma(0, 0, 0, None, None, None),
        "label_runs": 0,
        "labelled": 0,
        "labels": 0,
        "training_set": None,
        "selected": None,
    }
    return Turn(**(given | more))


def pilot(**more: Any) -> dict[str, Any]:
    given = {"id": 1, "job_id": None, "started_at": 0.0, "ended_at": 7200.0, "seen_at": 7200.0, "nodes": {"a": 4}}
    spent = {"reserved_core_s": 28_800.0, "useful_core_s": 7200.0, "interrupted_core_s": 0.0, "failed_core_s": 3600.0}
    return given | spent | {"reason": ""} | more


@pytest.mark.parametrize(
    ("explored", "expected"),
    [
        ([], Gamma(0, 0, 0, None, None, None)),
        ([{"broke": True}], Gamma(1, 1, 0, None, None, None)),
        (
            [{"steps": 10, "gamma_mean": 1.0, "gamma_std": 0.0, "gamma_max": 3.0}],
            Gamma(1, 0, 10, 3.0, 1.0, 0.0),
        ),
        (
            [
                {"steps": 30, "gamma_mean": 1.0, "gamma_std": 0.0, "gamma_max": 3.0, "broke": False},
                {"steps": 10, "gamma_mean": 5.0, "gamma_std": 0.0, "gamma_max": 11.0, "broke": True},
            ],
            Gamma(2, 1, 40, 11.0, 2.0, math.sqrt(3.0)),
        ),
    ],
)
def test_the_grade_of_several_explorations_is_that_of_all_their_steps(
    explored: list[dict[str, Any]], expected: Gamma
) -> None:
    assert pooled(explored) == expected


def test_turns_know_their_labels_their_errors_and_the_sample_of_their_explorations() -> None:
    facts = {"train": {"configurations": 20, "train": {"eps_F": 0.01}}, "why": "1 of 2 explorations broke"}
    records = Records(
        now=0.0,
        generations=[Generation(7, 0, 0, 0.0), Generation(8, 0, 1, 0.0, 1.0, "same stage", facts)],
        ran=[
            ran(task=1, generation=8, verdict="not converged"),
            ran(task=1, generation=8),
            ran(task=2, generation=8),
            ran(task=3, generation=None),
        ],
        explored=[done("s0g1-explore-300", 8, steps=5, gamma_mean=1.0, gamma_std=0.5, gamma_max=2.0)],
        evaluated=[
            done("s0g1-evaluate", 8, holdout={"eps_F": 0.02}, error_bars={"eps_F": 0.003}),
            done("s0g1-questions", None, sample={"eps_F": 0.05}),
        ],
    )
    first, second = turns(records)
    assert (first.name, second.name, second.why) == ("s1g0", "s1g1", "1 of 2 explorations broke")
    assert (second.labelled, second.label_runs, second.labels) == (2, 3, 2)
    assert second.gamma.highest == 2.0
    found = [second.error(among, "eps_F") for among in ("holdout", "sample", "train", "test")]
    assert found == [0.02, 0.05, 0.01, None]
    assert second.bar("eps_F") == 0.003
    assert first.error("holdout", "eps_F") is None


def test_stages_begin_where_their_first_generation_is() -> None:
    assert stage_starts([turn(0), turn(1), turn(2, 2), turn(3, 2)]) == [(1, 0), (2, 2)]


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (None, None), (True, None), ("x", None), (math.inf, None)])
def test_only_finite_numbers_count(value: Any, expected: float | None) -> None:
    assert number(value) == expected
    assert scaled(value, 2.0) == (None if expected is None else 2.0 * expected)


def test_a_csv_has_empty_cells_for_what_is_not_known_and_quotes_what_needs_it() -> None:
    text = Data(("a", "b", "c"), [(1, None, True), (0.1234567891, 'x,"y"', False)]).csv()
    assert text == 'a,b,c\n1,,1\n0.12345679,"x,""y""",0\n'


def test_histograms_of_a_generation_are_added_up_and_foreign_bins_left_out() -> None:
    given = {
        "a": ([0.1, 1.0, 10.0], [5, 1]),
        "b": ([0.1, 1.0, 10.0], [3, 0]),
        "c": ([0.0, 1.0, 10.0], [100, 0]),
        "d": None,
    }
    explored = [done(key, 1) for key in given]
    (found,) = gamma.histograms([turn(0), turn(1)], explored, lambda one: given[one.key])
    assert (found.turn.count, found.counts) == (0, (8, 1))
    assert gamma.below(found, 1.0) == pytest.approx(8 / 9)


@pytest.mark.parametrize(("many", "expected"), [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (61, [0, 30, 60])])
def test_the_first_the_middle_and_the_last_generation_are_shown(many: int, expected: list[int]) -> None:
    every = [gamma.Histogram(turn(count), (0.1, 1.0), (1,)) for count in range(many)]
    assert [found.turn.count for found in gamma.three(every)] == expected


@pytest.mark.parametrize(
    ("verdict", "resumable", "expected"),
    [
        ("done", False, "useful"),
        ("interrupted", True, "useful"),
        ("interrupted", False, "interrupted"),
        ("not converged", False, "failed"),
        ("", False, "under way"),
    ],
)
def test_what_became_of_an_attempt(verdict: str, resumable: bool, expected: str) -> None:
    assert machine.fate(ran(verdict=verdict, resumable=resumable)) == expected


def test_core_hours_count_all_nodes_and_what_runs_until_now() -> None:
    both = ran(shares=(("a", 2), ("b", 4)))
    runs = ran(kind="train", verdict="", ended_at=None, wall_s=None, started_at=3600.0)
    assert machine.core_hours([both, both, runs], 5400.0) == {("label", "useful"): 12.0, ("train", "under way"): 1.0}


def test_failures_are_counted_by_cause_with_the_reason_that_most_gave() -> None:
    found = machine.failures(
        [
            ran(),
            ran(verdict="timeout", reason="after 60 s"),
            *(ran(verdict="crashed", reason=reason) for reason in ("b", "a", "b")),
        ],
        0.0,
    )
    assert [(one.verdict, one.attempts, one.example) for one in found] == [
        ("crashed", 3, "b"),
        ("timeout", 1, "after 60 s"),
    ]


def test_the_clock_stands_still_between_allocations() -> None:
    hour = 3600.0
    first = pilot(started_at=0.0, ended_at=2 * hour)
    second = pilot(started_at=100 * hour, ended_at=None, seen_at=101 * hour)
    time = machine.clock(Records(now=101 * hour, pilots=[first, second]))
    assert time is not None
    assert time.length == pytest.approx(3.0)
    assert [time.hours(at * hour) for at in (0, 1, 2, 50, 100, 100.5)] == pytest.approx([0, 1, 2, 2, 2, 2.5])
    assert machine.clock(Records(now=0.0)) is None


def test_busy_cores_are_the_same_core_time_in_whatever_bins() -> None:
    runs = [ran(), ran(started_at=1800.0, ended_at=7200.0, kind="train", shares=(("a", 1), ("b", 3)))]
    records = Records(now=7200.0, pilots=[pilot()], ran=runs)
    time = machine.clock(records)
    assert time is not None
    for bins in (1, 3, 7, 240):
        found = {lane.node: lane for lane in machine.lanes(records, time, bins)}
        width = time.length / bins
        assert sum(found["a"].busy["label"]) * width == pytest.approx(2.0)
        assert sum(found["a"].busy["train"]) * width == pytest.approx(1.5)
        assert sum(found["b"].busy["train"]) * width == pytest.approx(4.5)
    assert found["a"].cores == 4
    assert [lane.node for lane in machine.gathered(list(found.values()), 1)[0]] == ["b"]


def test_bars_of_a_node_never_overlap() -> None:
    runs = [ran(started_at=600.0 * k, ended_at=600.0 * k + 900.0 + 100.0 * (k % 3)) for k in range(12)]
    records = Records(now=9000.0, pilots=[pilot()], ran=runs)
    time = machine.clock(records)
    assert time is not None
    bars = machine.bars(records, time)
    for i, one in enumerate(bars):
        for other in bars[i + 1 :]:
            apart = one.end <= other.begin + 1e-6 or one.bottom + one.cores <= other.bottom
            assert apart or other.bottom + other.cores <= one.bottom
    assert max(bar.bottom + bar.cores for bar in bars) == 4


def test_shares_of_an_allocation_are_one_together() -> None:
    assert machine.shares(pilot()) == {"useful": 0.25, "interrupted": 0.0, "failed": 0.125, "rest": 0.625}
    assert set(machine.shares(pilot(reserved_core_s=0.0)).values()) == {None}


def test_the_smooth_curve_finds_the_minimum_of_an_equation_of_state() -> None:
    volumes = [14.0, 15.0, 16.0, 17.0, 18.0]
    x = [(16.2 / v) ** (2 / 3) for v in volumes]
    curve = physics.smooth(volumes, [9.0 * 16.2 * 0.5 / 16.0 * (a - 1.0) ** 2 * 2.0 for a in x])
    assert curve is not None
    assert curve.minimum is not None
    assert curve.minimum[0] == pytest.approx(16.2, abs=0.02)
    assert physics.smooth(volumes[:4], [0.0] * 4) is None
    falling = physics.smooth(volumes, [5.0, 4.0, 3.0, 2.0, 1.0])
    assert falling is not None
    assert falling.minimum is None


def test_correlation_by_rank_sees_what_grows_and_shares_equal_places() -> None:
    assert questions.ranks([3.0, 1.0, 3.0, 7.0]) == [1.5, 0.0, 1.5, 3.0]
    assert questions.correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert questions.correlation([1.0, 2.0], [5.0, 5.0]) is None
    assert questions.correlation([1.0], [5.0]) is None


def test_a_study_is_read_from_its_tasks_by_their_keys() -> None:
    trained = [
        done("study-l8-1-train", seconds=50.0, parameters=26, train={"rmse_energy_per_atom": 0.002}),
        done("study-l2-1-train", seconds=5.0, train={}),
        done("s0g0-train", seconds=99.0),
    ]
    evaluated = [done("study-l8-1-evaluate", holdout={"rmse_energy_per_atom": 0.003})]
    found = study.points(trained, evaluated)
    assert [(point.level, point.seed, point.core_s) for point in found] == [(2, 1, 10.0), (8, 1, 100.0)]
    shown = study.table(found).shown
    assert shown[1][:5] == ("8", "1", "26", "2", "3")
    assert shown[0][2] == "–"


def test_large_sets_are_thinned_and_the_text_says_so() -> None:
    import numpy as np

    figure = parity.forces({"train_forces": np.zeros((12_000, 2)), "holdout_forces": np.ones((3, 2))}, "stage 1")
    assert "4000 of 12000" in figure.says
    assert len(figure.data.rows) == 4003
    assert parity.energies({"train_forces": np.zeros((5, 2))}, "stage 1").lacks


@pytest.mark.parametrize(
    ("outcome", "state", "good"),
    [("converged", "converged", True), ("not converged", "not converged", False), ("same stage", "running", None)],
)
def test_the_head_says_in_the_words_of_the_decision_why_it_ended(outcome: str, state: str, good: bool | None) -> None:
    labels = [LabelSettings("x", {"train": 5, "holdout": 2}), LabelSettings("y", {"train": 1})]
    records = Records(now=0.0, labels=labels, pilots=[pilot()], tasks={"label": {"done": 7, "failed": 1}})
    head = summary.head(records, [turn(0), turn(1, outcome=outcome, why="so it was")], None, "folder")
    assert (head.state, head.good, head.why) == (state, good, "so it was")
    assert ("labels", "8 (6 train, 2 holdout)") in head.facts
    assert ("tasks", "7 of 8 done") in head.facts


def test_a_table_of_stages_knows_those_that_have_not_begun_only_from_pilot_toml() -> None:
    table = summary.stages([turn(0), turn(1, outcome="next stage", why="clean"), turn(2, 2)], Records(now=0.0), None)
    assert [row[0] for row in table.shown] == ["1", "2"]
    assert [row[-1] for row in table.shown] == ["next stage: clean", "running"]
    assert summary.stages([], Records(now=0.0), None).lacks


def test_every_figure_without_data_says_why_and_draws_nothing() -> None:
    empty = Records(now=0.0)
    figures = [
        learning.dft_runs([]),
        learning.gamma_max([], {}),
        learning.gamma_mean([]),
        learning.errors([], "eps_F"),
        learning.reliability(empty, []),
        learning.to_convergence([]),
        gamma.distribution([], {}, {}),
        gamma.course([]),
        questions.against([], force=True),
        physics.lattice([], None),
        physics.energy_volume([]),
    ]
    for figure in figures:
        assert figure.lacks
        assert figure.draw is None
    assert provenance.label_settings(empty).lacks


@pytest.mark.parametrize(("values", "expected"), [((13.2, 14.7), "14.2"), ((1.1, 1.9), "1.5"), ((2.0, 30.0), "20")])
def test_a_logarithmic_axis_has_numbers_however_little_it_spans(values: tuple[float, float], expected: str) -> None:
    def draw(canvas: Any) -> None:
        axes(canvas, "generation", "ε_F (meV/Å)", ylog=True).plot([10, 11], values)

    svg, _ = render(Figure("name", "Title", "", Data((), []), draw))
    assert f">{expected}</text>" in svg


def test_a_figure_is_drawn_as_both_kinds_of_picture() -> None:
    figure = learning.dft_runs([turn(0, labelled=3, label_runs=4), turn(1, 2, labelled=2, label_runs=2)])
    svg, png = render(figure, png=True)
    assert "failed, interrupted, running" in svg
    assert png.startswith(b"\x89PNG")
    assert render(figure)[1] == b""


def test_pictures_in_one_page_share_no_ids_and_keep_the_digits_of_their_words() -> None:
    svg = (
        '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><metadata>x</metadata>'
        '<style>* {}</style><path id="p1" d="M 1.23456 7" clip-path="url(#c1)"/><use xlink:href="#p1" x="0.98765"/>'
        "<text>4.96001</text></svg>"
    )
    assert inlined(svg, "name", "T") == (
        '<svg viewBox="0 0 9 9" role="img" aria-label="T"><path id="name-p1" d="M 1.23 7" clip-path="url(#name-c1)"/>'
        '<use href="#name-p1" x="0.98"/><text>4.96001</text></svg>'
    )
