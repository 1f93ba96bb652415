"""The small-cell protocol as planning: which tasks a generation consists of. Pure: records in, records out.

Algorithms 1–3 of the Pb report: initial data, then for each cell size generations of explore → select → label →
train until no exploration exceeds γ_break. What runs when is the scheduler's business: here are only tasks, what
they need, and what they are to do.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from db.dataset import Candidate
from db.records import Json, NewTask, Structure
from db.states import EdgeKind, TaskKind
from pilot.campaign import cells
from pilot.config import Config
from pilot.label_tables import LabelTable
from pilot.stage_tables import StageTable
from pilot.tables import CampaignTable, CrystalTable
from pilot.train_tables import TrainTable

#: The critical path goes first; labels fill the cores that are left.
PRIORITY = {
    TaskKind.TRAIN: 100,
    TaskKind.SELECT: 95,
    TaskKind.EXPLORE: 90,
    TaskKind.LABEL: 60,
    TaskKind.COMMAND: 50,
    TaskKind.EVALUATE: 40,
}

#: Settings that say where a program is or how it gets to its result, not what the result is.
NO_MATTER = frozenset({"command", "pseudo_dir", "mixing_beta", "electron_maxstep"})


@dataclass(frozen=True, slots=True)
class Generation:
    """Tasks of one generation, to be inserted together.

    Attributes:
        stage: from 0.
        number: in its stage, from 0.
        candidates: structures to be recorded before their label tasks.
        tasks: may need each other by key.
    """

    stage: int
    number: int
    candidates: list[Candidate] = field(default_factory=list)
    tasks: list[NewTask] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the potential in use and its training set lie, relative to the campaign folder.

    Attributes:
        trained_by: the key of the task that makes it, while it is still to be made.
    """

    potential: str
    training_set: str
    trained_by: str | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """What planning needs of pilot.toml, with the unit cells of the crystal.

    Attributes:
        cells: "primitive" and "conventional".
    """

    config: Config
    campaign: CampaignTable
    crystal: CrystalTable
    label: LabelTable
    train: TrainTable
    cells: dict[str, Structure]

    def stage_cell(self, stage: int) -> Structure:
        """The ideal cell of a stage."""
        table = self.config.stages[stage]
        return cells.repeated(self.cells[table.cell], table.repeat or [1, 1, 1])

    def seed(self, *names: str | float) -> int:
        """A seed of its own for everything that has a name; always the same for the same campaign seed."""
        text = "/".join(str(name) for name in (self.campaign.seed, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 900_000_000 + 1

    def label_settings(self) -> str:
        """A name for everything that decides what a label says: labels with different names do not mix."""
        settings = {key: value for key, value in self.label.settings().items() if key not in NO_MATTER}
        content = json.dumps({"engine": self.label.engine, "settings": settings}, sort_keys=True)
        return f"{self.label.engine}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def initial_generation(protocol: Protocol) -> Generation:
    """The initial data: strained cells, the fixed holdout, the reference energy–volume curve; and the first fit."""
    initial = protocol.config.initial
    cell = cells.repeated(protocol.cells[initial.cell], initial.repeat)
    candidates = [
        Candidate(
            cells.strained(cell, initial.strain, initial.rattle, protocol.seed("initial", role, i)),
            role,
            f"initial {role} {i + 1}",
        )
        for role, count in (("train", initial.train), ("holdout", initial.holdout))
        for i in range(count)
    ]
    # in the same cell and on the same k-points: the curve is that of the calculations that are learned from
    curve = [
        Candidate(cells.scaled(cell, factor), "eos", f"energy-volume curve, a × {factor:.4f}")
        for factor in (cells.lattice_scales(initial.eos_points, initial.eos_range) if initial.eos_points else [])
    ]
    labels = [_label_task(protocol, candidate, initial.kpoints) for candidate in candidates + curve]
    fit = _fit_tasks(protocol, 0, 0, labels, start=None)
    return Generation(0, 0, candidates + curve, _as_configured(protocol, labels + fit))


def exploring_generation(protocol: Protocol, stage: int, number: int, paths: Paths) -> Generation:
    """Explorations over the (T, P) grid from rattled cells with fresh seeds (Algorithm 2), and the selection.

    The selection needs the explorations to have ended, in whatever way: one that fails does not stop the rest.
    """
    table = protocol.config.stages[stage]
    cell = protocol.stage_cell(stage)
    pressures: list[float | None] = [*table.pressures] if protocol.config.explore.ensemble == "npt" else [None]
    grid = [(t, p, r) for t in table.temperatures for p in pressures for r in range(table.replicas)]
    after: tuple[tuple[str | int, EdgeKind], ...] = ((paths.trained_by, EdgeKind.DONE),) if paths.trained_by else ()
    explorations = [
        NewTask(
            kind=TaskKind.EXPLORE,
            engine=protocol.config.explore.engine,
            name=f"explore {t:g} K"
            + ("" if p is None else f" {p:g} bar")
            + (f" #{r + 1}" if table.replicas > 1 else ""),
            spec=_explore_spec(protocol, table, cell, paths, {"temperature": t, "pressure": p})
            | {"seed": protocol.seed("explore", stage, number, t, str(p), r)},
            # ten digits: what differs in pilot.toml differs here
            key=f"s{stage}g{number}-explore-{t:.10g}-{'nvt' if p is None else f'{p:.10g}'}-{r}",
            size=(table.steps or protocol.config.explore.steps) * len(cell.numbers),
            after=after,
        )
        for t, p, r in grid
    ]
    select = NewTask(
        kind=TaskKind.SELECT,
        engine="maxvol",
        name="select",
        spec=_select_spec(protocol, paths),
        key=key_of(TaskKind.SELECT, stage, number),
        after=tuple((task.key or "", EdgeKind.ENDED) for task in explorations),
    )
    return Generation(stage, number, [], _as_configured(protocol, [*explorations, select]))


def learning_generation(
    protocol: Protocol, stage: int, number: int, selected: Sequence[Candidate], start: str
) -> Generation:
    """The labels of what was selected, the fit that waits for them, and its evaluation."""
    kpoints = protocol.config.stages[stage].kpoints
    labels = [_label_task(protocol, candidate, kpoints) for candidate in selected]
    fit = _fit_tasks(protocol, stage, number, labels, start=start)
    return Generation(stage, number, list(selected), _as_configured(protocol, labels + fit))


def user_labels(protocol: Protocol, candidates: Sequence[Candidate]) -> list[NewTask]:
    """The label tasks of structures that a user brings: they belong to no generation."""
    return _as_configured(protocol, [_label_task(protocol, candidate, None) for candidate in candidates])


def _label_task(protocol: Protocol, candidate: Candidate, kpoints: list[int] | None) -> NewTask:
    """The task that labels a structure; a structure has one such task for given settings, whoever asks."""
    atoms = len(candidate.structure.numbers)
    return NewTask(
        kind=TaskKind.LABEL,
        engine=protocol.label.engine,
        name=f"label {candidate.source}",
        spec={
            "structure": candidate.structure.to_json(),
            "species": protocol.campaign.species,
            "kpoints": kpoints,
            "settings": protocol.label.settings(),
        },
        key=f"label-{candidate.structure.content_hash()}-{protocol.label_settings()}",
        size=atoms,
    )


def settings_of(key: str | None) -> str | None:
    """The name of the settings with which a label task was planned; its spec may have been softened since."""
    parts = (key or "").split("-", 2)
    return parts[2] if len(parts) == 3 and parts[0] == TaskKind.LABEL else None


def key_of(kind: TaskKind, stage: int, number: int) -> str:
    """The key of the one task of a kind in a generation."""
    return f"s{stage}g{number}-{kind}"


def _fit_tasks(
    protocol: Protocol, stage: int, number: int, labels: Sequence[NewTask], start: str | None
) -> list[NewTask]:
    train = protocol.train
    fit = NewTask(
        kind=TaskKind.TRAIN,
        engine=train.engine,
        name=f"train level {train.level}",
        spec={
            "start": start,
            "level": train.level,
            "species": protocol.campaign.species,
            "min_dist": train.min_dist,
            "max_dist": train.max_dist,
            "radial_basis_size": train.radial_basis_size,
            "weights": train.weights.model_dump(),
            "iterations": train.iterations if start else train.first_iterations,
            "seed": protocol.seed("train"),
        },
        key=key_of(TaskKind.TRAIN, stage, number),
        after=tuple((task.key or "", EdgeKind.ENDED) for task in labels),
    )
    evaluation = NewTask(
        kind=TaskKind.EVALUATE,
        engine="evaluate",
        name="evaluate",
        spec={
            "species": protocol.campaign.species,
            "lattice": {"structure": protocol.cells["primitive"].to_json(), "a": protocol.crystal.a},
        },
        key=key_of(TaskKind.EVALUATE, stage, number),
        after=((fit.key or "", EdgeKind.DONE),),
    )
    return [fit, evaluation]


def _explore_spec(
    protocol: Protocol, table: StageTable, cell: Structure, paths: Paths, conditions: Json
) -> dict[str, object]:
    explore = protocol.config.explore
    return {
        **conditions,
        "potential": f"{paths.potential}/pot.mtp",
        "active_set": f"{paths.potential}/active.npz",
        "species": protocol.campaign.species,
        "structure": cell.to_json(),
        "rattle": explore.rattle,
        "coupling": explore.coupling,
        "steps": table.steps or explore.steps,
        "timestep_fs": explore.timestep_fs,
        "gamma_save": explore.gamma_save,
        "gamma_break": explore.gamma_break,
        "max_saved": explore.max_saved,
    }


def _select_spec(protocol: Protocol, paths: Paths) -> dict[str, object]:
    select = protocol.config.select
    primitive = protocol.cells["primitive"]
    volume = cells.volume_per_atom(primitive)
    return {
        "potential": f"{paths.potential}/pot.mtp",
        "active_set": f"{paths.potential}/active.npz",
        "train": f"{paths.training_set}/train.cfg",
        "species": protocol.campaign.species,
        "method": select.method,
        "gamma_save": protocol.config.explore.gamma_save,
        "limit": select.limit,
        "min_distance": select.min_distance or round(0.6 * cells.nearest_distance(primitive), 3),
        "volume_per_atom": [factor * volume for factor in select.volume_range],
    }


def _as_configured(protocol: Protocol, tasks: list[NewTask]) -> list[NewTask]:
    """The tasks with the priority and the resources of their kinds.

    Their times stay open: they are those of pilot.toml at the time, or learned.
    """
    configured: list[NewTask] = []
    for task in tasks:
        resources = protocol.config.resources.of(task.kind).resources()
        configured.append(replace(task, priority=PRIORITY[task.kind], resources=resources))
    return configured
