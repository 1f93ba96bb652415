"""Keys of pilot.toml that contradict each other: what can be known from the file alone is said before anything runs."""

from collections.abc import Iterator
from typing import Protocol

from pilot.label_tables import LabelTable
from pilot.stage_tables import ExploreTable, SelectTable, StageTable
from pilot.tables import CampaignTable, CrystalTable, InitialTable
from pilot.train_tables import ConvergeTable, QuestionsTable, StudyTable, TrainTable, ValidationTable
from tasks import registry
from tasks.validation import FEWEST_POINTS

_OF_DYNAMICS = ("temperatures", "pressures", "lattice_parameters", "scenarios", "steps", "ensemble", "timestep_fs")


class Tables(Protocol):
    """What is looked at of pilot.toml."""

    @property
    def campaign(self) -> CampaignTable | None: ...
    @property
    def crystal(self) -> CrystalTable | None: ...
    @property
    def initial(self) -> InitialTable: ...
    @property
    def stages(self) -> list[StageTable]: ...
    @property
    def explore(self) -> ExploreTable: ...
    @property
    def select(self) -> SelectTable: ...
    @property
    def label(self) -> LabelTable | None: ...
    @property
    def train(self) -> TrainTable | None: ...
    @property
    def validation(self) -> ValidationTable: ...
    @property
    def converge(self) -> ConvergeTable: ...
    @property
    def questions(self) -> QuestionsTable: ...
    @property
    def study(self) -> StudyTable | None: ...


def contradictions(config: Tables) -> Iterator[str]:
    """One sentence for each, in the order of the file; of a file with all tables that a campaign needs."""
    yield from _species(config)
    yield from _crystal(config)
    for number, stage in enumerate(config.stages, 1):
        for said in _stage(config, stage, config.explore.of_stage(stage)):
            yield f"stage {number}: {said}"
    yield from _exploration(config)
    yield from _selection(config)
    yield from _questions(config)
    yield from _study(config)
    yield from _convergence(config)


def _species(config: Tables) -> Iterator[str]:
    assert config.campaign is not None
    assert config.label is not None
    species = config.campaign.species
    if len(set(species)) < len(species):
        yield "campaign.species names one species twice"
    strangers = sorted(set(config.label.atom_energies) - set(species))
    if strangers:
        yield f"label.atom_energies has {', '.join(strangers)}, which campaign.species has not"


def _crystal(config: Tables) -> Iterator[str]:
    crystal = config.crystal
    assert crystal is not None
    beside = sorted({"structure", "formula"} & crystal.model_fields_set)
    if crystal.file is not None and beside:
        yield f"crystal.file is the crystal: leave out crystal.{' and crystal.'.join(beside)}"


def _stage(config: Tables, stage: StageTable, explore: ExploreTable) -> Iterator[str]:
    assert config.crystal is not None
    assert config.train is not None
    if stage.mode == "relax":
        ignored = [name for name in _OF_DYNAMICS if name in stage.model_fields_set]
        if ignored:
            yield f'mode = "relax" has no dynamics: leave out {", ".join(ignored)} ([explore.relax] has its own keys)'
    elif stage.lattice_parameters:
        yield from _scaled(config, stage, explore)
    if stage.mode == "md" and "liquid" in stage.scenarios:
        melt, hottest = explore.melt, max(stage.temperatures)
        if melt.temperature is not None and melt.temperature < hottest:
            yield f"liquids are melted at {melt.temperature:g} K and then cooled, not heated to {hottest:g} K"
        if melt.lattice_parameter is not None and config.crystal.a is None:
            yield "explore.melt.lattice_parameter needs crystal.a, the lattice parameter of crystal.file"
    if explore.clean_sweeps > stage.max_generations:
        yield f"{explore.clean_sweeps} clean sweeps cannot be had in max_generations = {stage.max_generations}"
    yield from _grade(config, stage, explore, config.train)


def _scaled(config: Tables, stage: StageTable, explore: ExploreTable) -> Iterator[str]:
    assert config.crystal is not None
    if explore.ensemble != "nvt":
        yield 'lattice_parameters are kept at constant volume only: set ensemble = "nvt", or leave them out'
    if stage.structures is not None:
        yield "lattice_parameters scale the crystal, not `structures`: leave them out"
    elif config.crystal.a is None:
        yield "lattice_parameters need crystal.a, the lattice parameter of crystal.file"


def _grade(config: Tables, stage: StageTable, explore: ExploreTable, train: TrainTable) -> Iterator[str]:
    has_active_set = "active.npz" in registry.POTENTIALS[train.engine].files
    if explore.grade == "committee":
        if train.members < 2:
            yield "a committee needs train.members of at least 2"
        for name in ("gamma_save", "gamma_break"):
            if name not in stage.model_fields_set | config.explore.model_fields_set:
                yield f"of a committee {name} is in eV/Å and has no default: say it"
        if explore.engine == "lammps-mlip":
            yield 'MLIP\'s pair style knows no committee: explore.engine = "lammps"'
    elif not has_active_set:
        cure = 'grade = "committee", with train.members of at least 2'
        yield f'train.engine = "{train.engine}" has no active set, and so no grade = "{explore.grade}": {cure}'


def _exploration(config: Tables) -> Iterator[str]:
    assert config.train is not None
    explore, train = config.explore, config.train
    if explore.engine == "lammps-mlip" and "active.npz" not in registry.POTENTIALS[train.engine].files:
        yield f'MLIP\'s pair style has no potentials of train.engine = "{train.engine}": explore.engine = "lammps"'
    if explore.engine == "lammps-mlip" and explore.plugin.style == "mlip-2" and train.engine != "mlip-2":
        yield 'explore.plugin.style = "mlip-2" needs the active set that train.engine = "mlip-2" writes'


def _selection(config: Tables) -> Iterator[str]:
    low, high = config.select.volume_range
    if not low < 1.0 < high:
        yield f"select.volume_range = [{low:g}, {high:g}] leaves out the crystal itself, which is 1"


def _questions(config: Tables) -> Iterator[str]:
    questions = config.questions
    low, high = questions.gamma
    if low >= high:
        yield "questions.gamma is [lowest, highest]"
    if questions.sample and config.stages and all(stage.mode == "relax" for stage in config.stages):
        yield "questions.sample is drawn from dynamics, and all stages relax"
    if questions.sample and config.study is not None:
        yield "questions.sample is drawn from explorations, and a study has none"


def _study(config: Tables) -> Iterator[str]:
    study, train = config.study, config.train
    if study is None:
        return
    assert train is not None
    if config.stages:
        yield "[study] and [[stages]] are two campaigns: keep one, give the other a folder of its own"
    wrong = [level for level in study.levels if level % 2 or not 2 <= level <= 28]
    if wrong:
        yield f"study.levels has {', '.join(map(str, wrong))}: they are even numbers from 2 to 28"
    if len(set(study.levels)) < len(study.levels):
        yield "study.levels has a level twice; `seeds` repeats fits with other seeds"
    if train.engine == "pair":
        yield 'train.engine = "pair" has no levels to study'
    if train.members > 1:
        yield "in a study study.seeds says how many fits there are: leave out train.members"


def _convergence(config: Tables) -> Iterator[str]:
    """What is asked for and can never be known would be found missing only when all else has converged."""
    converge, points = config.converge, config.initial.eos_points
    of_the_curve = [key for key in ("lattice_parameter", "bulk_modulus", "curve") if getattr(converge, key) is not None]
    if of_the_curve and points < FEWEST_POINTS:
        names = ", ".join(f"converge.{key}" for key in of_the_curve)
        yield f"{names} can never be known: initial.eos_points must be at least {FEWEST_POINTS} (it is {points})"
    if converge.elastic is not None and not config.validation.elastic:
        yield "converge.elastic can never be known: set validation.elastic = true"
