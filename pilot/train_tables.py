"""The tables of pilot.toml about the potential and when it is good enough; see :mod:`pilot.tables`."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pilot.tables import Positive, Table
from tasks import registry

#: below it there is one radial function only, and the first linear fit finds that
_LEVEL_OF_MEMBERS = 6


class WeightsTable(Table):
    """Weights of the fit, as MLIP has them."""

    energy: float = Field(1.0, ge=0, description="1/eV²")
    forces: float = Field(0.01, ge=0, description="Å²/eV²")
    stress: float = Field(0.001, ge=0, description="of volume × stress, 1/eV²")


class MlipTable(Table):
    """MLIP-3 or MLIP-2, for engine = "mlip-3" or "mlip-2"."""

    command: str = Field("mlp", description="the program, found on PATH, or its path")
    template: str | None = Field(
        None, description="untrained potential to begin from; without it, one of train.level is written"
    )


def _known(engine: str) -> str:
    if engine not in registry.MODELS:
        raise ValueError(f"must be one of {', '.join(registry.MODELS)}")
    return engine


class TrainTable(Table):
    """The moment tensor potential and its fit."""

    engine: Annotated[str, AfterValidator(_known)] = Field(
        "motep", description="motep: comes with pilot; mlip-3, mlip-2: MLIP's mlp; pair: pair functions only"
    )
    level: int = Field(8, description="level of the MTP: 2, 4, …, 28; 8 has 26 parameters for one species")
    min_dist: Positive = Field(
        description="Å; inner end of the radial basis, frozen: choose it below any distance to come"
    )
    max_dist: Positive = Field(5.0, description="Å; cutoff radius")
    radial_basis_size: int = Field(8, ge=1, le=100, description="number of Chebyshev polynomials")
    iterations: int = Field(100, ge=1, description="BFGS steps of each fit after the first")
    first_iterations: int = Field(300, ge=1, description="BFGS steps of the first fit, which starts from nothing")
    members: int = Field(
        1, ge=1, le=100, description="so many potentials from different seeds: error bars, and a committee"
    )
    weights: WeightsTable = Field(WeightsTable(), description="weights of the fit")
    mlip: MlipTable = Field(MlipTable(), description="MLIP's own program")

    @model_validator(mode="after")
    def _valid(self) -> "TrainTable":
        if self.level % 2 or not 2 <= self.level <= 28:
            raise ValueError("level must be an even number from 2 to 28")
        if self.min_dist >= self.max_dist:
            raise ValueError("min_dist must be below max_dist")
        if self.members > 1 and self.engine == "motep" and self.level < _LEVEL_OF_MEMBERS:
            raise ValueError("members of levels 2 and 4 are all the same, whatever their seed: use level 6 or higher")
        return self


class ValidationTable(Table):
    """What each potential is asked beside its errors and the energy-volume curve."""

    elastic: bool = Field(False, description="elastic constants, of the potential and of the reference")
    elastic_strain: Annotated[float, Field(gt=0, le=0.05)] = Field(
        0.01, description="largest strain of the cells from which the reference's are computed"
    )


class ConvergeTable(Table):
    """What a stage must fulfil besides explore.clean_sweeps before it has converged. What is left out is not asked."""

    flat: float = Field(
        0.3,
        ge=0,
        description="the holdout's force error may differ by this part between the last two sweeps; 0: not asked",
    )
    force_error: Positive | None = Field(None, description="eV/Å; ε_F on the holdout")
    energy_error: Positive | None = Field(None, description="eV/atom; ε_E on the holdout")
    lattice_parameter: Positive | None = Field(None, description="Å; the potential's and the reference's, apart")
    bulk_modulus: Positive | None = Field(None, description="GPa; the same of the bulk modulus")
    curve: Positive | None = Field(
        None, description="eV/atom; largest difference of the two energy-volume curves, each from its own minimum"
    )
    elastic: Positive | None = Field(None, description="GPa; the same of any elastic constant")


class QuestionsTable(Table):
    """What to find out about the extrapolation grade, as the Pb report did: it costs labels that train nothing."""

    sample: int = Field(
        0, ge=0, le=100_000, description="so many configurations of each sweep are labelled to compare γ and error"
    )
    gamma: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        [0.1, 10.0], description="they are uniform in γ between these two, as far as there are such"
    )
    every: int = Field(1, ge=1, description="of every how manieth generation")


class StudyTable(Table):
    """Instead of stages: potentials of several levels from the same data, side by side, their errors and costs."""

    levels: list[int] = Field(min_length=1, description="levels of the MTP: even numbers from 2 to 28")
    seeds: int = Field(1, ge=1, le=100, description="fits for each level, from different seeds")
