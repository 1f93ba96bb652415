"""The tables of pilot.toml about the reference calculations; see :mod:`pilot.tables`."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pilot.tables import Positive, Table


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
    bands: Annotated[float, Field(ge=1)] | None = Field(
        None, description="bands, as a multiple of half the electrons; without it QE's 1.2: too few for a wide smearing"
    )
    conv_thr: Positive = Field(1e-8, description="the SCF has converged below this, Ry")
    mixing_beta: Annotated[float, Field(gt=0, le=1)] = Field(0.7, description="mixing of new and old density")
    electron_maxstep: int = Field(100, ge=1, description="SCF steps at most")
    input: dict[str, dict[str, Any]] = Field({}, description="anything else: input.system.nspin = 2 goes into &SYSTEM")


class AseTable(Table):
    """Any calculator of ASE, by its import path."""

    calculator: str = Field(description='for example "ase.calculators.emt.EMT"')
    arguments: dict[str, Any] = Field({}, description="its arguments")


class VaspTable(Table):
    """VASP. Its potentials are those of your licence: only their folder is named here."""

    command: str = Field("vasp_std", description="the program, found on PATH, or its path")
    potcar_dir: str | None = Field(
        None, description="folder that holds NAME/POTCAR for each potential; without it, $VASP_POTCAR_DIR"
    )
    potcars: dict[str, str] = Field(
        {}, description='NAME of the potential of each species, as Pb = "Pb_d"; without it, the symbol'
    )
    encut: Positive = Field(description="plane-wave cutoff, eV")
    kspacing: Positive = Field(0.3, description="distance between k-points, 1/Å, 2π included, where no k-grid is given")
    ismear: int = Field(1, ge=-5, le=10, description="how occupations are smeared; 1: Methfessel-Paxton, 0: Gauss")
    sigma: Positive = Field(0.2, description="width of the smearing, eV")
    ediff: Positive = Field(1e-6, description="the SCF has converged below this, eV")
    nelm: int = Field(100, ge=1, description="SCF steps at most")
    prec: Literal["Normal", "Accurate"] = Field("Accurate", description="PREC")
    algo: Literal["Normal", "Fast", "VeryFast", "All", "Damped", "Conjugate"] = Field("Normal", description="ALGO")
    incar: dict[str, Any] = Field({}, description="anything else: incar.ISPIN = 2 goes into INCAR as it stands")


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(n) is int and 1 <= n <= 100 for n in value)


class LabelTable(Table):
    """The reference calculations."""

    engine: Literal["qe", "vasp", "ase"] = Field(
        "qe", description="qe: Quantum ESPRESSO; vasp: VASP; ase: any ASE calculator"
    )
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
    atom_energies: dict[str, float] = Field(
        {}, description="eV; taken off the energy of every configuration for each of its atoms, as Li = -200.1"
    )
    fidelity: dict[str, dict[str, Any]] = Field(
        {},
        description="[label.fidelity.NAME]: keys of the engine's table, and `kpoints`, that differ from the stage on "
        "that has fidelity = NAME",
    )
    qe: QeTable | None = Field(None, description="settings of Quantum ESPRESSO")
    vasp: VaspTable | None = Field(None, description="settings of VASP")
    ase: AseTable | None = Field(None, description="settings of the ASE calculator")

    @model_validator(mode="after")
    def _has_settings(self) -> "LabelTable":
        if getattr(self, self.engine) is None:
            raise ValueError(f'engine = "{self.engine}" needs the table [label.{self.engine}]')
        return self

    def settings(self, fidelity: str | None = None) -> dict[str, Any]:
        """The table of the chosen engine, with what a fidelity changes in it (but for its k-grid)."""
        table: Table = getattr(self, self.engine)
        changes = {key: value for key, value in self.fidelity.get(fidelity or "", {}).items() if key != "kpoints"}
        settings = type(table).model_validate(table.model_dump() | changes).model_dump()
        # a key that came later: labels made before keep the name of their settings
        return {key: value for key, value in settings.items() if key != "bands" or value is not None}

    @model_validator(mode="after")
    def _fidelities_fit(self) -> "LabelTable":
        for name in self.fidelity:
            try:
                self.settings(name)
            except ValidationError as error:
                (first, *_) = error.errors()
                known = f"is no key of [label.{self.engine}]"
                said = known if first["type"] == "extra_forbidden" else first["msg"]
                raise ValueError(f"fidelity.{name}.{'.'.join(map(str, first['loc']))}: {said}") from error
            grid = self.fidelity[name].get("kpoints")
            if grid is not None and not _is_grid(grid):
                raise ValueError(f"fidelity.{name}.kpoints: three whole numbers from 1 to 100, as [4, 4, 2]")
        return self
