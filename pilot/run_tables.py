"""The tables of pilot.toml that say how tasks and the pilot are run; see :mod:`pilot.tables`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from db.errors import PilotError
from db.records import Resources
from db.states import TaskKind, Verdict
from pilot.durations import parse_duration
from pilot.tables import Table


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except PilotError as error:
        raise ValueError(f"{error.what}; {error.next_step}") from error


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
MpiLauncherName = Literal["auto", "openmpi4", "openmpi5", "intelmpi", "mpich", "srun", "none"]


class ResourcesTable(Table):
    """What tasks of one kind hold and how long they need."""

    ranks: int = Field(1, ge=1, description="MPI processes")
    threads: int = Field(1, ge=1, description="cores of each rank")
    nodes: int = Field(1, ge=1, description="nodes over which the ranks are spread, as many on each")
    gpus: int = Field(0, ge=0, description="GPUs, on each of its nodes")
    memory_mb: int = Field(
        0, ge=0, description="memory on each of its nodes, MB; a task that exceeds it is ended; 0: its share by cores"
    )
    mpi: MpiLauncherName | None = Field(None, description="how its ranks are started; without it, run.mpi")
    time_request: Seconds | None = Field(
        None, description='what one is expected to need ("10 min"); learned as soon as some are done'
    )
    time_limit: Seconds | None = Field(None, description="what ends one that hangs")

    def resources(self) -> Resources:
        """As the scheduler wants them."""
        return Resources(self.ranks, self.threads, self.gpus, self.memory_mb, self.nodes)

    @model_validator(mode="after")
    def _even(self) -> "ResourcesTable":
        if self.ranks % self.nodes:
            raise ValueError(f"{self.ranks} ranks cannot be spread evenly over {self.nodes} nodes")
        return self


#: What tasks of a kind are expected to need, and what ends them, where pilot.toml says nothing.
TIMES = {
    "explore": {"time_request": 60.0, "time_limit": 6 * 3600.0},
    "select": {"time_request": 30.0, "time_limit": 2 * 3600.0},
    "label": {"time_request": 120.0, "time_limit": 2 * 3600.0},
    "train": {"time_request": 300.0, "time_limit": 12 * 3600.0},
    "evaluate": {"time_request": 30.0, "time_limit": 3600.0},
}


class ResourcesTables(Table):
    """[resources.KIND] for each kind of task."""

    explore: ResourcesTable = ResourcesTable(**TIMES["explore"])
    select: ResourcesTable = ResourcesTable(**TIMES["select"])
    label: ResourcesTable = ResourcesTable(**TIMES["label"])
    train: ResourcesTable = ResourcesTable(**TIMES["train"])
    evaluate: ResourcesTable = ResourcesTable(**TIMES["evaluate"])

    @model_validator(mode="before")
    @classmethod
    def _keep_other_defaults(cls, given: Any) -> Any:
        """A table that gives one key keeps the defaults of the others."""
        if not isinstance(given, dict):
            return given
        return {
            kind: TIMES[kind] | table if kind in TIMES and isinstance(table, dict) else table
            for kind, table in given.items()
        }

    def of(self, kind: TaskKind) -> ResourcesTable:
        """The table of a kind."""
        table: ResourcesTable = getattr(self, kind.value)
        return table

    def guesses(self) -> dict[TaskKind, float]:
        """What tasks of a kind are expected to need, until some are done."""
        return {kind: table.time_request for kind, table in self._by_kind() if table.time_request is not None}

    def limits(self) -> dict[TaskKind, float]:
        """What ends tasks of a kind when they hang."""
        return {kind: table.time_limit for kind, table in self._by_kind() if table.time_limit is not None}

    def _by_kind(self) -> list[tuple[TaskKind, ResourcesTable]]:
        return [(kind, self.of(kind)) for kind in TaskKind if kind.value in type(self).model_fields]

    def launchers(self) -> dict[TaskKind, str]:
        """The MPI launchers that were named for kinds of tasks."""
        return {kind: table.mpi for kind, table in self._by_kind() if table.mpi is not None}


class RetriesTable(Table):
    """How often a task is tried again, by what went wrong; what is interrupted from outside costs nothing."""

    crashed: int = Field(2, ge=0, description="the program ended badly")
    not_converged: int = Field(2, ge=0, description="tried again with softer settings")
    out_of_memory: int = Field(1, ge=0, description="tried again with twice the memory")
    timeout: int = Field(1, ge=0, description="its time limit ended it")
    bad_input: int = Field(0, ge=0, description="its input cannot be used")
    infrastructure: int = Field(3, ge=0, description="the node or the disk failed it")

    def budgets(self) -> dict[Verdict, int]:
        """By verdict."""
        return {Verdict(name.replace("_", " ")): count for name, count in self.model_dump().items()}


class RunTable(Table):
    """How the pilot itself runs."""

    cores: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="so many of this machine's cores; without it, all; more than it has: tasks share them, unpinned",
    )
    memory_mb: int | None = Field(None, ge=1, description="use so much memory; without it, what is there")
    walltime: Seconds | None = Field(
        None, description="drain before so much time has passed; without it, run to the end"
    )
    drain_wait: Seconds = Field(
        600.0, description="when draining without a known end, running tasks may go on for so long"
    )
    soft_stop: Seconds = Field(20.0, description="a task that is asked to stop in its own way gets this long")
    mpi: MpiLauncherName = Field("auto", description="how MPI programs are started; auto: by what they are linked with")
    mpi_arguments: list[str] = Field([], description="arguments that this site wants its MPI launcher to be given")
    max_output_mb: int = Field(
        2000,
        ge=0,
        description="a task that writes more to its standard output and error is ended, and their beginning and end "
        "are kept; 0: no limit",
    )
    hyperthreads: bool = Field(False, description="use all hardware threads of a core, not one")
    env: dict[str, str] = Field({}, description="environment for every task")
    world: Literal["auto", "local", "srun", "mpiexec", "mpirun"] = Field(
        "auto",
        description="how the pilot's own ranks are started in an allocation of several nodes; auto: srun; "
        "local: use the first node only",
    )
    silence: Annotated[Seconds, Field(ge=5)] = Field(
        20.0, description="a node that is not heard for so long is lost: its tasks run elsewhere"
    )
    pack: bool = Field(True, description="finished runs, but the newest, are packed into zip files under runs/packed/")
    pack_up_to_mb: int = Field(1000, ge=0, description="the folder of a run that holds more MB stays as it is")
