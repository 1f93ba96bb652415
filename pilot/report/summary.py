"""The head of a report and its table of stages: how far the campaign is, and why it ended or goes on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.campaign.criteria import Turn as Outcome
from pilot.config import Config
from pilot.report.figure import Data, Table, number, scaled
from pilot.report.records import Records
from pilot.report.turns import Turn
from pilot.stage_tables import StageTable

_ENDS = {Outcome.CONVERGED, Outcome.NOT_CONVERGED, Outcome.NOTHING_RAN}


@dataclass(frozen=True, slots=True)
class Head:
    """What stands at the top.

    Attributes:
        name: of the campaign, or of the folder.
        state: in a word or two.
        good: whether that word is good news (True), bad (False), or neither.
        why: it ended, or goes on, in the words of the decision.
        facts: what there is of everything: name and value.
    """

    name: str
    state: str
    good: bool | None
    why: str
    facts: list[tuple[str, str]]


def head(records: Records, turns: Sequence[Turn], config: Config | None, folder: str) -> Head:
    """The head of a report."""
    campaign = None if config is None else config.campaign
    facts: list[tuple[str, str]] = []
    state, good, why = "no campaign", None, ""
    if turns:
        last = turns[-1]
        decided = next((turn for turn in reversed(turns) if turn.outcome), None)
        state = last.outcome if last.outcome in _ENDS else "running"
        good = True if state == Outcome.CONVERGED else False if state in _ENDS else None
        why = "" if decided is None else decided.why
        if decided is not None and decided is not last:
            why = f"stage {decided.stage} generation {decided.number}: {why}"
        stages = len(config.stages) if config is not None else max(turn.stage for turn in turns)
        if stages:
            facts.append(("stage", f"{last.stage} of {max(stages, last.stage)}, generation {last.number}"))
    elif campaign is not None:
        state = "not begun"
    roles: dict[str, int] = {}
    for settings in records.labels:
        for role, count in settings.counts.items():
            roles[role] = roles.get(role, 0) + count
    if roles:
        listed = ", ".join(f"{count} {role}" for role, count in roles.items())
        facts.append(("labels", f"{sum(roles.values())} ({listed})"))
    done = sum(states.get("done", 0) for states in records.tasks.values())
    total = sum(sum(states.values()) for states in records.tasks.values())
    facts.append(("tasks", f"{done} of {total} done"))
    held = sum(pilot["reserved_core_s"] for pilot in records.pilots) / 3600.0
    useful = sum(pilot["useful_core_s"] for pilot in records.pilots) / 3600.0
    if held:
        facts.append(("core-hours", f"{_plain(held)} held, {min(useful / held, 1.0):.0%} of them useful"))
    return Head(folder if campaign is None else campaign.name, state, good, why, facts)


def _plain(hours: float) -> str:
    return f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"


def stages(turns: Sequence[Turn], records: Records, config: Config | None) -> Table:
    """What each stage was, how it went, and what its last potential is worth."""
    name, title = "stages", "Stages"
    says = (
        "γ_max is that of the stage's last sweep; ε_F and ε_E are those of its last potential on the fixed holdout; a "
        "is its lattice parameter, with the difference from the reference."
    )
    tables: Sequence[StageTable] = () if config is None else config.stages
    count = max(len(tables), max((turn.stage for turn in turns), default=0))
    columns = (
        *("stage", "cell", "atoms", "temperatures_K", "pressures_bar", "generations", "dft_runs", "gamma_max"),
        *("eps_F_meV_A", "eps_E_meV_atom", "lattice_parameter_A", "reference_A", "outcome", "why"),
    )
    if not count:
        return Table(name, title, says, Data(columns, ()), lacks="this folder has no campaign")
    rows = [_stage(turns, records, tables[i] if i < len(tables) else None, i) for i in range(count)]
    headings = (
        *("stage", "cell", "atoms", "T (K)", "P (bar)", "gene\u00adrations", "DFT runs", "γ_max"),
        *("ε_F (meV/Å)", "ε_E (meV/atom)", "a (Å)", "outcome"),
    )
    return Table(name, title, says, Data(columns, rows), headings, [_shown(row) for row in rows])


Row = tuple[str | int | float | None, ...]


def _stage(turns: Sequence[Turn], records: Records, table: StageTable | None, place: int) -> Row:
    mine = [turn for turn in turns if turn.stage == place + 1]
    swept = [turn for turn in mine if turn.number]
    judged = next((turn for turn in reversed(mine) if turn.evaluation), None)
    graded = next((turn for turn in reversed(swept) if turn.gamma.highest is not None), None)
    evaluation = {} if judged is None else judged.evaluation
    decided = next((turn for turn in reversed(swept) if turn.outcome), None)
    outcome = "not begun" if not mine else "running"
    if swept and swept[-1].outcome and swept[-1].outcome != Outcome.SAME_STAGE:
        outcome = swept[-1].outcome
    return (
        place + 1,
        "" if table is None else _cell(table),
        records.stage_atoms.get(place),
        "" if table is None else _listed(table.temperatures),
        "" if table is None else _listed(table.pressures),
        len(swept),
        sum(turn.labelled for turn in mine),
        None if graded is None else graded.gamma.highest,
        None if judged is None else scaled(judged.error("holdout", "eps_F"), 1000.0),
        None if judged is None else scaled(judged.error("holdout", "eps_E_per_atom"), 1000.0),
        number(evaluation.get("lattice_parameter")),
        number(evaluation.get("lattice_parameter_dft")),
        outcome,
        "" if decided is None else decided.why,
    )


def _cell(table: StageTable) -> str:
    if table.repeat is not None:
        return f"[{', '.join(str(n) for n in table.repeat)}]" + (" conv." if table.cell == "conventional" else "")
    return table.structures or ""


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _shown(row: Row) -> tuple[str, ...]:
    stage, cell, atoms, t, p, generations, runs, gamma, force, energy, a, reference, outcome, why = row
    lattice = _digits(a, ".4f")
    if isinstance(a, float) and isinstance(reference, float):
        lattice += f" ({a - reference:+.4f})"
    # the outcome says that it has converged
    why = str(why).removeprefix(f"stage {stage} has converged: ")
    words = f"{outcome}: {why}" if why else str(outcome)
    numbers = (_digits(gamma, ".3g"), _digits(force, ".3g"), _digits(energy, ".3g"), lattice)
    whole = "–" if atoms is None else str(atoms)
    return (str(stage), str(cell), whole, str(t), str(p), str(generations), str(runs), *numbers, words)


def _digits(value: str | float | None, how: str) -> str:
    return format(value, how) if isinstance(value, int | float) else "–"
