"""What planning needs of pilot.toml, and the names on which plans, records and files agree. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from db.dataset import Candidate
from db.records import NewTask, Structure
from db.states import EdgeKind, TaskKind
from pilot.campaign import cells
from pilot.config import Config
from pilot.label_tables import LabelTable
from pilot.stage_tables import ExploreTable
from pilot.tables import CampaignTable, CrystalTable
from pilot.train_tables import TrainTable
from tasks import registry

#: The critical path goes first; labels fill the cores that are left.
PRIORITY = {
    # it takes seconds, and the selection waits for it: what a potential is worth decides how the campaign goes on
    TaskKind.EVALUATE: 105,
    TaskKind.TRAIN: 100,
    TaskKind.SELECT: 95,
    TaskKind.EXPLORE: 90,
    TaskKind.LABEL: 60,
    TaskKind.COMMAND: 50,
}
#: Labels that train nothing come last.
PRIORITY_OF_SAMPLES = 30

#: Settings that say where a program is or how it gets to its result, not what the result is.
NO_MATTER = frozenset({"command", "pseudo_dir", "mixing_beta", "electron_maxstep", "potcar_dir", "nelm", "algo"})


@dataclass(frozen=True, slots=True)
class Generation:
    """Tasks of one generation, to be inserted together.

    Attributes:
        stage: from 0.
        number: in its stage, from 0.
        candidates: structures to be recorded before their label tasks.
        tasks: may need each other by key.
        loose: tasks that belong to no generation: nobody waits for them but who names them.
    """

    stage: int
    number: int
    candidates: list[Candidate] = field(default_factory=list)
    tasks: list[NewTask] = field(default_factory=list)
    loose: list[NewTask] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Source:
    """The potential in use: of which generation it is, and where it and its training set lie.

    Attributes:
        stage: of the generation that trained it, from 0.
        number: of that generation.
        potential: its folder, relative to the campaign's.
        training_set: the folder of its generation, relative to the campaign's.
        to_be_trained: it is still to be made.
    """

    stage: int
    number: int
    potential: str
    training_set: str
    to_be_trained: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """What planning needs of pilot.toml, with the cells that its files hold.

    Attributes:
        cells: "primitive" and "conventional", and "reference": of which lattice parameter, energy–volume curve and
            elastic constants are computed.
        pools: the structures of the stages that bring their own, by stage.
    """

    config: Config
    campaign: CampaignTable
    crystal: CrystalTable
    label: LabelTable
    train: TrainTable
    cells: Mapping[str, Structure]
    pools: Mapping[int, Sequence[Structure]] = field(default_factory=dict)

    def stage_cell(self, stage: int) -> Structure:
        """The ideal cell of a stage that is a multiple of the crystal's."""
        table = self.config.stages[stage]
        return cells.repeated(self.cells[table.cell], table.repeat or [1, 1, 1])

    def occupied(self, cell: Structure, *names: str | float) -> Structure:
        """Of a random alloy: the cell with a species drawn for each site, by these names; of a crystal the cell."""
        if self.crystal.composition is None:
            return cell
        return cells.occupied(cell, self.crystal.composition, self.seed("sites", *names))

    def explore(self, stage: int) -> ExploreTable:
        """How a stage explores."""
        return self.config.explore.of_stage(self.config.stages[stage])

    def grades(self) -> set[str]:
        """What γ is in one stage or another."""
        return {self.explore(stage).grade for stage in range(len(self.config.stages))}

    def fidelity(self, stage: int) -> str | None:
        """The fidelity of the labels of a stage: the one that was named last; None: that of the engine's table."""
        named = [table.fidelity for table in self.config.stages[: stage + 1] if table.fidelity is not None]
        return named[-1] if named else None

    def seed(self, *names: str | float) -> int:
        """A seed of its own for everything that has a name; always the same for the same campaign seed."""
        text = "/".join(str(name) for name in (self.campaign.seed, *names))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 900_000_000 + 1

    def label_settings(self, stage: int = 0) -> str:
        """A name for everything that decides what a label of a stage says: labels of different names do not mix."""
        fidelity = self.fidelity(stage)
        settings = {key: value for key, value in self.label.settings(fidelity).items() if key not in NO_MATTER}
        if fidelity is not None and "kpoints" in self.label.fidelity[fidelity]:
            settings["kpoints"] = self.label.fidelity[fidelity]["kpoints"]
        content = json.dumps({"engine": self.label.engine, "settings": settings}, sort_keys=True)
        return f"{self.label.engine}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def model(self) -> dict[str, str]:
        """What specs say of the kind of potential: nothing of MTPs by motep."""
        return {} if self.train.engine == "motep" else {"model": self.train.engine}

    @property
    def potential_file(self) -> str:
        """The file of a trained potential in its folder."""
        return registry.POTENTIALS[self.train.engine].file


def key_of(kind: TaskKind, stage: int, number: int, member: int = 0) -> str:
    """The key of the one task of a kind in a generation; of a further member of an ensemble its own."""
    return f"s{stage}g{number}-{kind}" + (f"-m{member}" if member else "")


def when_ended(tasks: Sequence[NewTask]) -> tuple[tuple[str | int, EdgeKind], ...]:
    """Needs these tasks to have ended, in whatever way."""
    return tuple((task.key or "", EdgeKind.ENDED) for task in tasks)


def member_of(key: str | None) -> int:
    """Which member of an ensemble a training makes; 0 is the potential itself."""
    _, _, member = (key or "").partition(f"-{TaskKind.TRAIN}-m")
    return int(member) if member.isdigit() else 0


def questions_key(stage: int, number: int) -> str:
    """The key of the task that compares γ and errors over a sample of a sweep."""
    return f"s{stage}g{number}-questions"


def study_key(kind: TaskKind, level: int, seed: int) -> str:
    """The key of a task of a study of levels."""
    return f"study-l{level}-{seed}-{kind}"


def study_of(key: str | None) -> str | None:
    """The name of the point of a study to which a task belongs, as "study-l8-1"."""
    parts = (key or "").split("-")
    return "-".join(parts[:3]) if parts[0] == "study" else None


def settings_of(key: str | None) -> str | None:
    """The name of the settings with which a label task was planned; its spec may have been softened since."""
    parts = (key or "").split("-", 2)
    return parts[2] if len(parts) == 3 and parts[0] == TaskKind.LABEL else None


def as_configured(protocol: Protocol, tasks: Sequence[NewTask]) -> list[NewTask]:
    """The tasks with the priority and the resources of their kinds.

    Their times stay open: they are those of pilot.toml at the time, or learned.
    """
    return [
        replace(
            task,
            priority=task.priority or PRIORITY[task.kind],
            resources=protocol.config.resources.of(task.kind).resources(),
        )
        for task in tasks
    ]
