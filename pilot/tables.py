"""The tables of pilot.toml: each key with its meaning, type, default and limits.

The descriptions here are the only ones: ``pilot init`` writes them as comments, docs/config.md is made from them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from db.errors import PilotError
from db.records import Resources
from db.states import TaskKind, Verdict
from pilot.durations import parse_duration


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except PilotError as error:
        raise ValueError(f"{error.what}; {error.next_step}") from error


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
Repeat = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]
Positive = Annotated[float, Field(gt=0)]
MpiLauncherName = Literal["auto", "openmpi4", "openmpi5", "intelmpi", "mpich", "srun", "none"]


class Table(BaseModel):
    """A table of pilot.toml: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CampaignTable(Table):
    """What is trained, and on what."""

    name: str = Field(description="what people call this campaign")
    species: list[str] = Field(
        min_length=1, description="chemical symbols; their order is the order of types in all files, keep it"
    )
    seed: int = Field(1, description="all random numbers come from it: the same seed, the same campaign")
    if_not_converged: Literal["stop", "continue"] = Field(
        "stop", description="after a stage's max_generations: stop, or go on with the next stage"
    )


class CrystalTable(Table):
    """The crystal from which all cells are made."""

    structure: Literal["bcc", "fcc", "hcp", "diamond", "sc"] | None = Field(
        "bcc", description='"bcc", "fcc", "hcp", "diamond" or "sc"; leave it out when `file` is given'
    )
    a: Positive | None = Field(None, description="lattice parameter, Å; a guess is enough")
    c: Positive | None = Field(None, description="second lattice parameter of hcp, Å")
    file: str | None = Field(None, description="instead: any structure file that ASE reads, relative to this file")

    @model_validator(mode="after")
    def _one_source(self) -> "CrystalTable":
        if self.file is None and self.a is None:
            raise ValueError("say `a`, the lattice parameter in Å, or `file`, a structure file")
        return self


class InitialTable(Table):
    """The data before the first exploration: strained and rattled cells, all labelled."""

    train: int = Field(20, ge=2, description="number of strained cells for the first potential")
    holdout: int = Field(
        10, ge=0, description="cells set aside, labelled once, never trained on: errors are measured here"
    )
    repeat: Repeat = Field([1, 1, 2], description="multiple of the cell along its three vectors")
    cell: Literal["primitive", "conventional"] = Field("primitive", description="which cell is repeated")
    strain: float = Field(0.06, ge=0, le=0.3, description="largest strain, each component at random within ±this")
    rattle: float = Field(0.1, ge=0, le=1, description="random displacement of atoms, standard deviation in Å")
    eos_points: int = Field(
        7,
        ge=0,
        le=31,
        description="points of the reference energy-volume curve (0: none): gives DFT's own lattice parameter",
    )
    eos_range: float = Field(0.06, gt=0, le=0.2, description="its lattice parameters reach from a(1−this) to a(1+this)")
    kpoints: Repeat | None = Field(None, description="k-grid of these cells; without it, from the engine's k-spacing")

    @model_validator(mode="after")
    def _differ(self) -> "InitialTable":
        if self.strain == 0 and self.rattle == 0:
            raise ValueError("strain and rattle are both 0: all cells would be the same, those of the holdout too")
        return self


class StageTable(Table):
    """One cell size; stages run one after another, from small to large. Give one [[stages]] table for each."""

    repeat: Repeat = Field(description="multiple of the cell along its three vectors")
    cell: Literal["primitive", "conventional"] = Field("primitive", description="which cell is repeated")
    temperatures: list[Positive] = Field(min_length=1, description="K; one exploration for each (T, P)")
    pressures: list[float] = Field([1.0], min_length=1, description="bar; ignored when explore.ensemble is nvt")
    replicas: int = Field(1, ge=1, description="explorations for each (T, P), with different seeds")
    steps: int | None = Field(None, ge=1, description="MD steps of each exploration; without it, explore.steps")
    max_generations: int = Field(20, ge=1, description="after this many the stage ends as not converged")
    kpoints: Repeat | None = Field(None, description="k-grid of this stage; without it, from the engine's k-spacing")

    @model_validator(mode="after")
    def _once(self) -> "StageTable":
        for name, values in (("temperatures", self.temperatures), ("pressures", self.pressures)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice; `replicas` repeats explorations with other seeds")
        return self


class ExploreTable(Table):
    """LAMMPS explores with the present potential and saves what it does not know."""

    engine: Literal["lammps"] = Field("lammps", description="the program")
    ensemble: Literal["npt", "nvt"] = Field("npt", description="constant pressure or constant volume")
    coupling: Literal["iso", "aniso", "tri"] = Field("iso", description="how the cell follows the pressure in npt")
    steps: int = Field(5000, ge=1, description="MD steps of each exploration (a full length)")
    timestep_fs: Positive = Field(1.0, description="fs")
    rattle: float = Field(0.05, ge=0, description="random displacement at the start, standard deviation in Å")
    gamma_save: Positive = Field(2.1, description="configurations with a higher extrapolation grade are preselected")
    gamma_break: Positive = Field(10.0, description="a higher one ends the exploration")
    max_saved: int = Field(
        500, ge=1, description="at most so many are preselected by one exploration (all are counted)"
    )
    clean_sweeps: int = Field(
        1, ge=1, description="a stage has converged when so many full sweeps in a row stay under gamma_break"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ExploreTable":
        if self.gamma_break <= self.gamma_save:
            raise ValueError("gamma_break must be above gamma_save")
        return self


class SelectTable(Table):
    """Of all preselected configurations few are labelled."""

    method: Literal["maxvol", "all"] = Field(
        "maxvol", description="maxvol: those that enlarge the active set; all: every one above gamma_save"
    )
    limit: int | None = Field(None, ge=1, description="at most so many a generation; without it, no limit")
    min_distance: Positive | None = Field(
        None,
        description="configurations with atoms nearer than this (Å) are nonsense; without it, 0.6 of the crystal's",
    )
    volume_range: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        [0.5, 2.0], description="volume per atom, in units of the crystal's: outside is nonsense"
    )


class QeTable(Table):
    """Quantum ESPRESSO's pw.x."""

    command: str = Field("pw.x", description="the program, found on PATH, or its path")
    pseudo_dir: str | None = Field(
        None, description="folder of pseudopotentials; without it, $ESPRESSO_PSEUDO or the system's"
    )
    pseudopotentials: dict[str, str] = Field(description="file of each species")
    ecutwfc: Positive = Field(description="plane-wave cutoff, Ry")
    ecutrho: Positive | None = Field(None, description="density cutoff, Ry; without it, 4 × ecutwfc")
    kspacing: Positive = Field(0.3, description="distance between k-points, 1/Å, 2π included (VASP's KSPACING)")
    smearing: Literal["mv", "mp", "gauss", "fd", "fixed"] = Field("mv", description="mv is Marzari-Vanderbilt (cold)")
    degauss: Positive = Field(0.02, description="width of the smearing, Ry")
    conv_thr: Positive = Field(1e-8, description="the SCF has converged below this, Ry")
    mixing_beta: Annotated[float, Field(gt=0, le=1)] = Field(0.7, description="mixing of new and old density")
    electron_maxstep: int = Field(100, ge=1, description="SCF steps at most")
    input: dict[str, dict[str, Any]] = Field({}, description="anything else: input.system.nspin = 2 goes into &SYSTEM")


class AseTable(Table):
    """Any calculator of ASE, by its import path."""

    calculator: str = Field(description='for example "ase.calculators.emt.EMT"')
    arguments: dict[str, Any] = Field({}, description="its arguments")


class LabelTable(Table):
    """The reference calculations."""

    engine: Literal["qe", "ase"] = Field("qe", description="qe: Quantum ESPRESSO; ase: any ASE calculator")
    quorum: float = Field(
        1.0,
        gt=0,
        le=1,
        description="training begins when this part of the labels is in (failed ones are set aside); "
        "below 1 later ones count in the next, and results depend on what came in time",
    )
    max_failed: float = Field(
        0.5, ge=0, le=1, description="when a larger part of a generation's labels fails for good, the campaign halts"
    )
    qe: QeTable | None = Field(None, description="settings of Quantum ESPRESSO")
    ase: AseTable | None = Field(None, description="settings of the ASE calculator")

    @model_validator(mode="after")
    def _has_settings(self) -> "LabelTable":
        if getattr(self, self.engine) is None:
            raise ValueError(f'engine = "{self.engine}" needs the table [label.{self.engine}]')
        return self

    def settings(self) -> dict[str, Any]:
        """The table of the chosen engine."""
        table: Table = getattr(self, self.engine)
        return table.model_dump()


class WeightsTable(Table):
    """Weights of the fit, as MLIP has them."""

    energy: float = Field(1.0, ge=0, description="1/eV²")
    forces: float = Field(0.01, ge=0, description="Å²/eV²")
    stress: float = Field(0.001, ge=0, description="of volume × stress, 1/eV²")


class TrainTable(Table):
    """The moment tensor potential and its fit."""

    engine: Literal["motep"] = Field("motep", description="the program")
    level: int = Field(8, description="level of the MTP: 2, 4, …, 28; 8 has 26 parameters for one species")
    min_dist: Positive = Field(
        description="Å; inner end of the radial basis, frozen: choose it below any distance to come"
    )
    max_dist: Positive = Field(5.0, description="Å; cutoff radius")
    radial_basis_size: int = Field(8, ge=1, description="number of Chebyshev polynomials")
    iterations: int = Field(100, ge=1, description="BFGS steps of each fit after the first")
    first_iterations: int = Field(300, ge=1, description="BFGS steps of the first fit, which starts from nothing")
    weights: WeightsTable = Field(WeightsTable(), description="weights of the fit")

    @model_validator(mode="after")
    def _valid(self) -> "TrainTable":
        if self.level % 2 or not 2 <= self.level <= 28:
            raise ValueError("level must be an even number from 2 to 28")
        if self.min_dist >= self.max_dist:
            raise ValueError("min_dist must be below max_dist")
        return self


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

    def launchers(self) -> dict[TaskKind, str]:
        """The MPI launchers that were named for kinds of tasks."""
        named = {kind: self.of(kind).mpi for kind in TaskKind if kind.value in type(self).model_fields}
        return {kind: name for kind, name in named.items() if name is not None}


class RetriesTable(Table):
    """How often a task is tried again, by what went wrong; what is interrupted from outside costs nothing."""

    crashed: int = Field(2, ge=0, description="the program ended badly")
    not_converged: int = Field(1, ge=0, description="tried again with softer settings")
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
