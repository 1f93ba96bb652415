"""The figures about learning by generation: DFT runs, γ, errors (figures 5 to 7, 11 and 12 of the Pb report)."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pilot.report import drawing
from pilot.report.figure import Data, Figure, lacking, number, scaled
from pilot.report.records import Done, Records
from pilot.report.turns import Turn, stage_starts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ACROSS = "generation, counted through all stages"
_WHERE = ("count", "stage", "generation")
#: beyond this γ only says nonsense: it is drawn here
HIGHEST = 1e4


def where(turn: Turn) -> tuple[int, int, int]:
    """The first cells of every row about a generation."""
    return turn.count, turn.stage, turn.number


def dft_runs(turns: Sequence[Turn]) -> Figure:
    """Figure 5: the number of reference calculations of each generation."""
    name, title = "dft-runs", "DFT runs per generation"
    total, attempts = sum(turn.labelled for turn in turns), sum(turn.label_runs for turn in turns)
    again = f"; {attempts - total} more attempts failed, were interrupted or still run" if attempts > total else ""
    says = f"Reference calculations that gave a label: {total} in all, the initial data included{again}."
    rows = [(*where(turn), turn.labelled, turn.label_runs - turn.labelled, turn.selected) for turn in turns]
    data = Data((*_WHERE, "labelled", "other_attempts", "selected"), rows)
    if not attempts:
        return lacking(name, title, says, "no reference calculation has run yet")

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, "DFT runs")
        counts = [turn.count for turn in turns]
        good = [turn.labelled for turn in turns]
        other = [turn.label_runs - turn.labelled for turn in turns]
        axes.bar(counts, good, color=drawing.BLUE, width=0.8, label="gave a label")
        if any(other):
            axes.bar(counts, other, bottom=good, color=drawing.ORANGE, width=0.8, label="failed, interrupted, running")
            axes.margins(y=0.22)
            drawing.legend(axes, loc="upper left", ncols=2)
        axes.grid(visible=False, axis="x")
        _finish(axes, turns)

    return Figure(name, title, says, data, draw)


def gamma_max(turns: Sequence[Turn], breaks: Mapping[int, float]) -> Figure:
    """Figure 6: the highest γ of each generation, with γ_break."""
    name, title = "gamma-max", "Highest extrapolation grade"
    says = (
        "The highest γ that the explorations of each generation met, with the γ_break at which they end; a stage may "
        "converge when all of its explorations stay below the line."
    )
    known = [turn for turn in turns if turn.gamma.highest is not None]
    rows = [(*where(t), t.gamma.highest, breaks.get(t.stage), t.gamma.explorations, t.gamma.broke) for t in known]
    data = Data((*_WHERE, "gamma_max", "gamma_break", "explorations", "broke"), rows)
    if not known:
        return lacking(name, title, says, "no exploration has ended yet")

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, "highest γ", ylog=True)
        counts = [turn.count for turn in known]
        values = [min(turn.gamma.highest or 0.0, HIGHEST) for turn in known]
        _by_stage(axes.plot, known, values)
        for broke, colour, label in (
            (True, drawing.RED, "an exploration broke"),
            (False, drawing.GREEN, "none broke"),
        ):
            chosen = [i for i, turn in enumerate(known) if bool(turn.gamma.broke) is broke]
            if chosen:
                points = [counts[i] for i in chosen], [values[i] for i in chosen]
                axes.plot(*points, "o", color=colour, label=label, zorder=3)
        lines = [turn for turn in known if turn.stage in breaks]
        for stage in dict.fromkeys(turn.stage for turn in lines):
            inside = [turn.count for turn in lines if turn.stage == stage]
            label = "γ_break" if stage == lines[0].stage else ""
            axes.hlines(
                breaks[stage], min(inside) - 0.5, max(inside) + 0.5, colors=drawing.BLACK, linestyles="--", label=label
            )
        axes.margins(y=0.18)
        drawing.legend(axes, loc="upper left", ncols=3)
        _finish(axes, turns)

    return Figure(name, title, says, data, draw)


def gamma_mean(turns: Sequence[Turn]) -> Figure:
    """Figure 7: mean and standard deviation of γ."""
    name, title = "gamma-mean", "Mean and spread of the extrapolation grade"
    says = (
        "Mean of γ over all MD steps of a generation's explorations; the band is one standard deviation to both sides "
        "(not below 0)."
    )
    known = [turn for turn in turns if turn.gamma.mean is not None]
    rows = [(*where(t), t.gamma.mean, t.gamma.std, t.gamma.steps) for t in known]
    data = Data((*_WHERE, "gamma_mean", "gamma_std", "steps"), rows)
    if not known:
        return lacking(name, title, says, "no exploration has ended yet")

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, "γ")
        counts = [turn.count for turn in known]
        means = [min(turn.gamma.mean or 0.0, HIGHEST) for turn in known]
        spreads = [min(turn.gamma.std or 0.0, HIGHEST) for turn in known]
        low = [means[i] - max(means[i] - spreads[i], 0.0) for i in range(len(known))]
        axes.errorbar(
            counts,
            means,
            yerr=(low, spreads),
            fmt="none",
            ecolor=drawing.SKY,
            elinewidth=max(1.5, min(7.0, 240 / len(known))),
            alpha=0.55,
        )
        _by_stage(axes.plot, known, means)
        axes.plot(counts, means, "o", color=drawing.BLUE, zorder=3)
        axes.set_ylim(bottom=0.0)
        _finish(axes, turns)

    return Figure(name, title, says, data, draw)


def errors(turns: Sequence[Turn], measure: str) -> Figure:
    """Figures 11 and 12: ε_E and ε_F by generation, on the fixed holdout and on fresh samples."""
    force = measure == "eps_F"
    name, title = ("force-error", "Force error ε_F") if force else ("energy-error", "Energy error ε_E")
    unit = "meV/Å" if force else "meV/atom"
    what = (
        "ε_F: root mean square over the atoms of the norm of the force error, averaged over the configurations"
        if force
        else "ε_E per atom: mean absolute error of the energy of a cell divided by its atoms"
    )
    says = (
        f"{what}. Holdout: cells that were set aside at the beginning and never trained on. Fresh sample: "
        "configurations drawn from the queries of a generation's own explorations and labelled for this only: errors "
        "of the potential with which it explored. Training set: what the potential of the generation was fitted to."
    )
    names = {"holdout": "holdout", "sample": "fresh sample", "test": "test set", "train": "training set"}
    rows = []
    for turn in turns:
        cells = [scaled(turn.error(among, measure), 1000.0) for among in names]
        if any(cell is not None for cell in cells):
            counts = [turn.error(among, "n") for among in names]
            rows.append((*where(turn), *cells, scaled(turn.bar(measure), 1000.0), *counts))
    columns = (*_WHERE, *names, "holdout_95_percent", *(f"n_{among}" for among in names))
    units = tuple(
        f"{c}_{'meV_A' if force else 'meV_atom'}" if c in {*names, "holdout_95_percent"} else c for c in columns
    )
    if not rows:
        return lacking(name, title, says, "no potential has been evaluated on a holdout or a sample yet")
    if any(row[len(_WHERE) + len(names)] is not None for row in rows):
        says += " Bars: 95 % interval from the ensemble."

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, f"{'ε_F' if force else 'ε_E'} ({unit})", ylog=True)
        styles = ((drawing.BLUE, "o"), (drawing.RED, "D"), (drawing.PURPLE, "^"), (drawing.GREY, "s"))
        for place, (label, (colour, marker)) in enumerate(zip(names.values(), styles, strict=True), len(_WHERE)):
            points = [(row[0], row[place], row[len(_WHERE) + len(names)]) for row in rows if row[place] is not None]
            if not points:
                continue
            counts, values, bars = zip(*points, strict=True)
            held = place == len(_WHERE)
            axes.plot(counts, values, marker=marker, color=colour, label=label, alpha=1.0 if place < 5 else 0.75)
            if held and any(bar is not None for bar in bars):
                lower = [min(bar or 0.0, value * 0.99) for bar, value in zip(bars, values, strict=True)]
                upper = [bar or 0.0 for bar in bars]
                axes.errorbar(counts, values, yerr=(lower, upper), fmt="none", ecolor=colour, capsize=2.5)
        drawing.legend(axes)
        _finish(axes, turns)

    return Figure(name, title, says, Data(units, rows), draw)


def reliability(records: Records, turns: Sequence[Turn]) -> Figure:
    """MD steps of each exploration before γ_break: the measure of reliability of the small-cell papers."""
    name, title = "md-steps", "MD steps before an exploration broke"
    says = (
        "Each point is an exploration: the MD steps it made before γ exceeded γ_break (open), or its full length "
        "(filled); the line is the mean of a generation. How far a potential gets is how reliable it is."
    )
    places = {turn.id: turn for turn in turns}
    rows = [row for done in records.explored if (row := _steps(done, places)) is not None]
    data = Data((*_WHERE, "exploration", "steps", "steps_wanted", "broke"), rows)
    if not rows:
        return lacking(name, title, says, "no exploration has ended yet")

    def draw(canvas: "Canvas") -> None:
        axes = drawing.axes(canvas, ACROSS, "MD steps")
        for broke, face, label in ((False, drawing.GREEN, "full length"), (True, "none", "broke")):
            chosen = [row for row in rows if row[6] is broke]
            if chosen:
                axes.plot(
                    [row[0] for row in chosen],
                    [row[4] for row in chosen],
                    "o",
                    markerfacecolor=face,
                    markeredgecolor=drawing.RED if broke else drawing.GREEN,
                    label=label,
                    rasterized=len(chosen) > drawing.MANY,
                )
        sums: dict[int, list[float]] = {}
        for row in rows:
            sums.setdefault(row[0], []).append(row[4])
        axes.plot(list(sums), [sum(s) / len(s) for s in sums.values()], color=drawing.BLUE, label="mean", zorder=1)
        axes.set_ylim(0.0, 1.2 * max(row[4] for row in rows) or 1.0)
        drawing.legend(axes, loc="upper left", ncols=3)
        _finish(axes, turns)

    return Figure(name, title, says, data, draw)


def _steps(done: Done, places: Mapping[int, Turn]) -> tuple[int, int, int, str, float, float | None, bool] | None:
    steps, turn = number(done.facts.get("steps")), places.get(done.generation or 0)
    if steps is None or turn is None:
        return None
    return (*where(turn), done.name, steps, number(done.facts.get("steps_wanted")), bool(done.facts.get("broke")))


def to_convergence(turns: Sequence[Turn]) -> Figure:
    """How many generations, and DFT runs, each stage took."""
    name, title = "generations-to-convergence", "Generations to convergence"
    says = "Generations that each stage explored, and the DFT runs in them; the initial data are no generation of this."
    found: dict[int, list[Turn]] = {}
    for turn in turns:
        if turn.number:
            found.setdefault(turn.stage, []).append(turn)
    rows = [
        (stage, len(within), sum(t.labelled for t in within), within[-1].outcome or "running")
        for stage, within in found.items()
    ]
    if not rows:
        return lacking(name, title, says, "no stage has been explored yet")

    def draw(canvas: "Canvas") -> None:
        left, right = canvas.subplots(1, 2, sharey=True)
        stages = [f"stage {row[0]}" for row in rows]
        for axes, column, label, colour in (
            (left, 1, "generations", drawing.GREEN),
            (right, 2, "DFT runs", drawing.BLUE),
        ):
            bars = axes.barh(stages, [row[column] for row in rows], color=colour, height=0.6)
            axes.bar_label(bars, padding=3, fontsize=8.5)
            axes.set_xlabel(label)
            drawing.whole_numbers(axes)
            axes.grid(visible=False)
            axes.set_xlim(0.0, 1.15 * max(bar.get_width() for bar in bars) or 1.0)
        left.invert_yaxis()

    height = 1.0 + 0.32 * len(rows)
    return Figure(
        name, title, says, Data(("stage", "generations", "dft_runs", "outcome"), rows), draw, size=(7.2, height)
    )


def _by_stage(plot: Callable[..., object], turns: Sequence[Turn], values: Sequence[float]) -> None:
    """A thin line through the generations of each stage."""
    for stage in dict.fromkeys(turn.stage for turn in turns):
        inside = [i for i, turn in enumerate(turns) if turn.stage == stage]
        plot([turns[i].count for i in inside], [values[i] for i in inside], color=drawing.GREY, linewidth=1.0, zorder=2)


def _finish(axes: "Axes", turns: Sequence[Turn]) -> None:
    drawing.whole_numbers(axes)
    if turns:
        axes.set_xlim(turns[0].count - 0.6, turns[-1].count + 0.6)
    drawing.mark_stages(axes, stage_starts(turns))
