"""The tables of pilot.toml that say what a campaign is about: each key with its meaning, type, default and limits.

How it explores stands in :mod:`pilot.stage_tables`, how it labels in :mod:`pilot.label_tables`, how it trains and
when it has converged in :mod:`pilot.train_tables`, how it is run in :mod:`pilot.run_tables`.

The descriptions are the only ones: ``pilot init`` writes them as comments, the page about pilot.toml is made of them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: upper ends here and below are where memory would be gone before anything is refused
Repeat = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=3, max_length=3)]
Positive = Annotated[float, Field(gt=0)]
#: those that ASE builds by name
Lattice = Literal[
    "bcc", "fcc", "hcp", "diamond", "sc", "rocksalt", "zincblende", "cesiumchloride", "fluorite", "wurtzite"
]


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

    structure: Lattice | None = Field("bcc", description="the lattice; leave it out when `file` is given")
    formula: str | None = Field(
        None, description='what sits on the sites of a compound, as "NaCl"; without it, the first species'
    )
    composition: dict[str, Positive] | None = Field(
        None, description="of a random alloy: the share of each species, as { Ag = 0.5, Pd = 0.5 }"
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

    train: int = Field(
        20,
        ge=0,
        le=100_000,
        description="number of strained cells for the first potential; 0: it is trained on what `pilot import` brought",
    )
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
