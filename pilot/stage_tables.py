"""The tables of pilot.toml about stages, exploration and selection; see :mod:`pilot.tables`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pilot.tables import Positive, Repeat, Table


class StageTable(Table):
    """One cell size; stages run one after another, from small to large. Give one [[stages]] table for each."""

    repeat: Repeat | None = Field(None, description="multiple of the cell along its three vectors")
    cell: Literal["primitive", "conventional"] = Field("primitive", description="which cell is repeated")
    structures: str | None = Field(
        None, description="instead of `repeat`: a file that ASE reads; each structure in it is explored"
    )
    mode: Literal["md", "relax"] = Field(
        "md", description="md: dynamics over the grid below; relax: the structures are relaxed to zero force and stress"
    )
    temperatures: list[Positive] = Field([], description='K; one exploration for each (T, P); none with mode = "relax"')
    pressures: list[float] = Field([1.0], min_length=1, description="bar; ignored at constant volume")
    lattice_parameters: list[Positive] = Field(
        [], description="Å; at constant volume: one exploration for each, the cell scaled to it"
    )
    scenarios: list[Literal["crystal", "liquid"]] = Field(
        ["crystal"], min_length=1, description="liquid: it is melted first, then cooled, as [explore.melt] says"
    )
    replicas: int = Field(1, ge=1, le=10_000, description="explorations for each (T, P), with different seeds")
    steps: int | None = Field(None, ge=1, description="MD steps of each exploration; without it, explore.steps")
    max_generations: int = Field(20, ge=1, description="after this many the stage ends as not converged")
    kpoints: Repeat | None = Field(None, description="k-grid of this stage; without it, from the engine's k-spacing")
    fidelity: str | None = Field(
        None, description="from here on labels are those of [label.fidelity.NAME]: the data are labelled anew"
    )
    ensemble: Literal["npt", "nvt"] | None = Field(None, description="without it, explore.ensemble")
    coupling: Literal["iso", "aniso", "tri"] | None = Field(None, description="without it, explore.coupling")
    timestep_fs: Positive | None = Field(None, description="fs; without it, explore.timestep_fs")
    rattle: Annotated[float, Field(ge=0)] | None = Field(None, description="Å; without it, explore.rattle")
    gamma_save: Positive | None = Field(None, description="without it, explore.gamma_save")
    gamma_break: Positive | None = Field(None, description="without it, explore.gamma_break")
    max_saved: Annotated[int, Field(ge=1)] | None = Field(None, description="without it, explore.max_saved")
    clean_sweeps: Annotated[int, Field(ge=1)] | None = Field(None, description="without it, explore.clean_sweeps")
    grade: Literal["configuration", "neighbourhood", "committee"] | None = Field(
        None, description="without it, explore.grade"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StageTable":
        lists: dict[str, Sequence[float | str]] = {
            "temperatures": self.temperatures,
            "pressures": self.pressures,
            "lattice_parameters": self.lattice_parameters,
            "scenarios": self.scenarios,
        }
        for name, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice; `replicas` repeats explorations with other seeds")
        if (self.repeat is None) == (self.structures is None):
            raise ValueError("give either `repeat`, a multiple of the crystal's cell, or `structures`, a file")
        if self.mode == "md" and not self.temperatures:
            raise ValueError("`temperatures` is missing: dynamics need at least one")
        return self


class MeltTable(Table):
    """How the scenario "liquid" begins: molten, then cooled and compressed to what the exploration is about."""

    temperature: Positive | None = Field(None, description="K; without it, twice the highest of the stage")
    lattice_parameter: Positive | None = Field(None, description="Å; without it, the largest of the stage")
    steps: int = Field(5000, ge=1, description="MD steps of melting")
    cooling_steps: int = Field(5000, ge=1, description="MD steps from there to the temperature and cell wanted")


class NeighbourhoodTable(Table):
    """How extrapolative neighbourhoods are cut out of large cells, with grade = "neighbourhood"."""

    radius: Positive = Field(8.0, description="Å; atoms nearer than this to the extrapolative one are cut out with it")
    vacuum: Positive = Field(9.0, description="Å of vacuum about them, along each direction")


class RelaxTable(Table):
    """How the stages with mode = "relax" do it."""

    force: Positive = Field(0.01, description="eV/Å; a structure is relaxed when no force is larger")
    steps: int = Field(300, ge=1, description="at most so many steps for each")
    cell: bool = Field(True, description="relax the cell, too")
    at_once: int = Field(50, ge=1, description="so many structures make one exploration task")


class PluginTable(Table):
    """LAMMPS with the interface of MLIP, for engine = "lammps-mlip"."""

    command: str = Field("lmp", description="LAMMPS that knows pair_style mlip, found on PATH, or its path")
    style: Literal["mlip-3", "mlip-2"] = Field("mlip-3", description="whose pair_style mlip it is")


class ExploreTable(Table):
    """LAMMPS explores with the present potential and saves what it does not know."""

    engine: Literal["lammps", "lammps-mlip"] = Field(
        "lammps", description="lammps: the one that comes with pilot; lammps-mlip: yours, with MLIP's pair style"
    )
    grade: Literal["configuration", "neighbourhood", "committee"] = Field(
        "configuration",
        description="what γ is: of the whole cell; the highest of all neighbourhoods; or how far the train.members "
        "potentials disagree about a force, eV/Å: then gamma_save and gamma_break are in eV/Å, too, and must be given",
    )
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

    melt: MeltTable = Field(MeltTable(), description="how liquids are made")
    neighbourhoods: NeighbourhoodTable = Field(NeighbourhoodTable(), description="how neighbourhoods are cut out")
    relax: RelaxTable = Field(RelaxTable(), description="how structures are relaxed")
    plugin: PluginTable = Field(PluginTable(), description="LAMMPS with MLIP's interface")

    @model_validator(mode="after")
    def _ordered(self) -> "ExploreTable":
        if self.gamma_break < self.gamma_save:
            raise ValueError("gamma_break must not be below gamma_save")
        return self

    def of_stage(self, stage: StageTable) -> "ExploreTable":
        """The same with what a stage says otherwise.

        Raises:
            ValueError: its thresholds and these contradict each other.
        """
        wishes = {name: getattr(stage, name) for name in type(self).model_fields if hasattr(stage, name)}
        return self.model_validate(self.model_dump() | {key: v for key, v in wishes.items() if v is not None})


class SelectTable(Table):
    """Of all preselected configurations few are labelled."""

    method: Literal["maxvol", "all", "highest"] = Field(
        "maxvol",
        description="maxvol: those that enlarge the active set; all: every one above gamma_save; "
        "highest: the `limit` ones of the highest grade, 20 without it (a committee has no active set: maxvol is this "
        "there)",
    )
    limit: int | None = Field(None, ge=1, description="at most so many a generation; without it, no limit")
    min_distance: Positive | None = Field(
        None,
        description="configurations with atoms nearer than this (Å) are nonsense; without it, 0.6 of the crystal's",
    )
    volume_range: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        [0.5, 2.0], description="volume per atom, in units of the crystal's: outside is nonsense"
    )
