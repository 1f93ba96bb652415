"""The tables of pilot.toml that say what a campaign is: each key with its meaning, type, default and limits.

How it is run stands in :mod:`pilot.run_tables`.

The descriptions here are the only ones: ``pilot init`` writes them as comments, docs/config.md is made from them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: upper ends here and below are where memory would be gone before anything is refused
Repeat = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=3, max_length=3)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of pilot.toml: unknown keys are mistakes."""

    # TOML has inf and nan: nothing here can be either
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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

    train: int = Field(20, ge=2, le=100_000, description="number of strained cells for the first potential")
    holdout: int = Field(
        10, ge=0, le=100_000, description="cells set aside, labelled once, never trained on: errors are measured here"
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
    replicas: int = Field(1, ge=1, le=10_000, description="explorations for each (T, P), with different seeds")
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
    radial_basis_size: int = Field(8, ge=1, le=100, description="number of Chebyshev polynomials")
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
