"""Which explorations a sweep consists of, and the selection that gathers what they found. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db.records import NewTask, Structure
from db.states import EdgeKind, TaskKind
from pilot.campaign import cells
from pilot.campaign.protocol import Generation, Protocol, Source, as_configured, key_of, when_ended
from pilot.stage_tables import ExploreTable, StageTable


@dataclass(frozen=True, slots=True)
class _Start:
    """Where one exploration begins.

    Attributes:
        name: added to what people see.
        tag: added to its key.
        scale: the cell, over that of the crystal as it was given.
    """

    cell: Structure
    name: str = ""
    tag: str = ""
    scale: float = 1.0


def exploring_generation(protocol: Protocol, stage: int, number: int, source: Source) -> Generation:
    """A sweep with fresh seeds (Algorithm 2 of the Pb report), and the selection.

    The selection needs the explorations to have ended, in whatever way: one that fails does not stop the rest. It needs
    the potential to have been evaluated, too: what it is worth decides how the campaign goes on.
    """
    table, explore = protocol.config.stages[stage], protocol.explore(stage)
    plan = _relaxations if table.mode == "relax" else _dynamics
    common = _common(protocol, explore, source)
    explorations = [
        NewTask(
            kind=TaskKind.EXPLORE,
            engine=explore.engine,
            name=task.name,
            spec=common | dict(task.spec),
            key=task.key,
            size=task.size,
            after=_trained(protocol, explore, source),
        )
        for task in plan(protocol, stage, number)
    ]
    evaluated = (key_of(TaskKind.EVALUATE, source.stage, source.number), EdgeKind.ENDED)
    select = NewTask(
        kind=TaskKind.SELECT,
        engine="maxvol",
        name="select",
        spec=_select_spec(protocol, explore, source),
        key=key_of(TaskKind.SELECT, stage, number),
        after=(*when_ended(explorations), evaluated),
    )
    return Generation(stage, number, [], as_configured(protocol, [*explorations, select]))


def _trained(protocol: Protocol, explore: ExploreTable, source: Source) -> tuple[tuple[str | int, EdgeKind], ...]:
    """The trainings that explorations wait for: of a committee all members."""
    if not source.to_be_trained:
        return ()
    members = protocol.train.members if explore.grade == "committee" else 1
    keys = [key_of(TaskKind.TRAIN, source.stage, source.number, member) for member in range(members)]
    return tuple((key, EdgeKind.DONE) for key in keys)


def _dynamics(protocol: Protocol, stage: int, number: int) -> Iterator[NewTask]:
    """One for each start, temperature, pressure, scenario and replica."""
    table, explore = protocol.config.stages[stage], protocol.explore(stage)
    pressures: list[float | None] = [*table.pressures] if explore.ensemble == "npt" else [None]
    grid = [
        (start, t, p, scenario, r)
        for start in _starts(protocol, stage)
        for t in table.temperatures
        for p in pressures
        for scenario in table.scenarios
        for r in range(table.replicas)
    ]
    steps = table.steps or explore.steps
    for start, t, p, scenario, r in grid:
        bars, liquid = "nvt" if p is None else f"{p:.10g}", scenario == "liquid"
        tag = start.tag + ("-liquid" if liquid else "")
        melting = explore.melt.steps + explore.melt.cooling_steps if liquid else 0
        shown = [f"{t:g} K", "" if p is None else f"{p:g} bar", start.name, scenario if liquid else ""]
        yield NewTask(
            kind=TaskKind.EXPLORE,
            engine=explore.engine,
            name=" ".join(["explore", *filter(None, shown)]) + (f" #{r + 1}" if table.replicas > 1 else ""),
            spec={
                "temperature": t,
                "pressure": p,
                # ten digits: what differs in pilot.toml differs here
                "seed": protocol.seed("explore", stage, number, t, str(p), r, *filter(None, [tag])),
                "structure": protocol.occupied(start.cell, "explore", stage, number, t, str(p), r, tag).to_json(),
                "rattle": explore.rattle,
                "coupling": explore.coupling,
                "steps": steps,
                "timestep_fs": explore.timestep_fs,
                **(_melting(protocol, table, explore, start) if liquid else {}),
                **_sampling(protocol, number),
            },
            key=f"s{stage}g{number}-explore-{t:.10g}-{bars}-{r}{tag}",
            size=(steps + melting) * len(start.cell.numbers),
        )


def _starts(protocol: Protocol, stage: int) -> Iterator[_Start]:
    """The cells of a stage: a multiple of the crystal's at each lattice parameter, or those that the user brings."""
    table = protocol.config.stages[stage]
    if table.structures is not None:
        pool = protocol.pools[stage]
        for index, structure in enumerate(pool):
            yield _Start(structure, f"structure {index + 1}" if len(pool) > 1 else "", f"-x{index}")
        return
    cell = protocol.stage_cell(stage)
    if not table.lattice_parameters:
        yield _Start(cell)
    for a in table.lattice_parameters:
        scale = a / (protocol.crystal.a or a)
        yield _Start(cells.scaled(cell, scale), f"a = {a:g} Å", f"-a{a:.10g}", scale)


def _melting(protocol: Protocol, table: StageTable, explore: ExploreTable, start: _Start) -> dict[str, Any]:
    melt = explore.melt
    # the largest of the stage, over the cell of this start
    widest = melt.lattice_parameter or max(table.lattice_parameters, default=None)
    scale = 1.0 if widest is None else widest / (protocol.crystal.a or widest) / start.scale
    return {
        "scenario": "liquid",
        "melt": {
            "temperature": melt.temperature or 2.0 * max(table.temperatures),
            "steps": melt.steps,
            "cooling_steps": melt.cooling_steps,
            "scale": round(scale, 10),
        },
    }


def _sampling(protocol: Protocol, number: int) -> dict[str, Any]:
    questions = protocol.config.questions
    if not questions.sample or number % questions.every:
        return {}
    return {"sample": {"count": questions.sample, "gamma": list(questions.gamma)}}


def _relaxations(protocol: Protocol, stage: int, number: int) -> Iterator[NewTask]:
    """A few structures of the pool each."""
    table, explore = protocol.config.stages[stage], protocol.explore(stage)
    pool = protocol.pools[stage] if table.structures is not None else _rattled(protocol, stage, number)
    at_once = explore.relax.at_once
    for first in range(0, len(pool), at_once):
        part = pool[first : first + at_once]
        last = first + len(part)
        yield NewTask(
            kind=TaskKind.EXPLORE,
            engine="lammps",  # whose step relaxes in Python: MLIP's pair style does dynamics only
            name=f"relax {first + 1}" + (f" to {last}" if len(part) > 1 else ""),
            spec={
                "mode": "relax",
                "structures": [structure.to_json() for structure in part],
                "relax": explore.relax.model_dump(exclude={"at_once"}),
                "seed": protocol.seed("relax", stage, number, first),
            },
            key=f"s{stage}g{number}-relax-{first}",
            size=sum(len(structure.numbers) for structure in part) * explore.relax.steps,
        )


def _rattled(protocol: Protocol, stage: int, number: int) -> list[Structure]:
    """Replicas of the stage's cell, rattled: a pool where the user brings none."""
    table, rattle = protocol.config.stages[stage], protocol.explore(stage).rattle
    return [
        cells.strained(
            protocol.occupied(protocol.stage_cell(stage), "relax", stage, number, r),
            0.0,
            rattle,
            protocol.seed("rattle", stage, number, r),
        )
        for r in range(table.replicas)
    ]


def _common(protocol: Protocol, explore: ExploreTable, source: Source) -> dict[str, Any]:
    """What all explorations of a sweep are told."""
    found: dict[str, Any] = {
        "potential": f"{source.potential}/{protocol.potential_file}",
        "active_set": f"{source.potential}/active.npz",
        "species": protocol.campaign.species,
        "gamma_save": explore.gamma_save,
        "gamma_break": explore.gamma_break,
        "max_saved": explore.max_saved,
        **_of_the_model(protocol, explore, source),
    }
    if explore.engine == "lammps-mlip":
        found["settings"] = explore.plugin.model_dump()
    return found


def _of_the_model(protocol: Protocol, explore: ExploreTable, source: Source) -> dict[str, Any]:
    """What differs from MTPs with an active set of configurations."""
    found: dict[str, Any] = dict(protocol.model())
    if explore.grade != "configuration":
        found["grade"] = explore.grade
    if explore.grade == "committee":
        found["members"] = member_files(protocol, source)
    return found


def member_files(protocol: Protocol, source: Source) -> list[str]:
    """The potentials of the further members of an ensemble, relative to the campaign folder."""
    return [f"{source.potential}-m{k}/{protocol.potential_file}" for k in range(1, protocol.train.members)]


def _select_spec(protocol: Protocol, explore: ExploreTable, source: Source) -> dict[str, Any]:
    select = protocol.config.select
    primitive = protocol.cells["primitive"]
    volume = cells.volume_per_atom(primitive)
    found: dict[str, Any] = {
        "potential": f"{source.potential}/{protocol.potential_file}",
        "active_set": f"{source.potential}/active.npz",
        "train": f"{source.training_set}/train.cfg",
        "of": [source.stage, source.number],
        "species": protocol.campaign.species,
        "method": select.method,
        "gamma_save": explore.gamma_save,
        "limit": select.limit,
        "min_distance": select.min_distance or round(0.6 * cells.nearest_distance(primitive), 3),
        "volume_per_atom": [factor * volume for factor in select.volume_range],
        **_of_the_model(protocol, explore, source),
    }
    if explore.grade == "neighbourhood":
        found["neighbourhoods"] = explore.neighbourhoods.model_dump()
    return found
