"""The protocol of a campaign folder: pilot.toml together with the structures that it names."""

from pathlib import Path

from db.errors import InputError
from db.records import Structure
from pilot.campaign import cells
from pilot.campaign.protocol import Protocol
from pilot.campaign.refusals import refuse_crystal, refuse_pool, refuse_selection, refuse_template
from pilot.config import Config
from pilot.folder import Folder
from pilot.tables import CampaignTable, CrystalTable, InitialTable
from tasks import registry
from tasks.formats.atoms import read_structures


def protocol_of(config: Config, folder: Folder) -> Protocol | None:
    """What planning needs; None in a folder without a campaign.

    Raises:
        InputError: the crystal cannot be built, a species is none, a stage's structures cannot be explored, or the
            label engine's settings are wrong.
    """
    if config.campaign is None or config.crystal is None or config.label is None or config.train is None:
        return None
    species, label, crystal = config.campaign.species, config.label, config.crystal
    named = [*species, *(crystal.composition or ())]
    wrong = [f"{symbol!r} is no chemical symbol" for symbol in dict.fromkeys(named) if not cells.is_element(symbol)]
    wrong = wrong or [
        said if fidelity is None else f"fidelity {fidelity}: {said}"
        for fidelity in (None, *label.fidelity)
        for said in registry.problems(label.engine, label.settings(fidelity), species, folder.root)
    ]
    if wrong:
        where = f"campaign.species or [label.{label.engine}] in {folder.config}"
        raise InputError("; ".join(wrong), where=where, next_step="mend it, then check with `pilot doctor`")
    unit = {name: cells.unit_cell(crystal, species, folder.root, name) for name in ("primitive", "conventional")}
    refuse_crystal(unit["primitive"], species, crystal, config.train, folder)
    refuse_selection(unit["primitive"], config.select, folder)
    refuse_template(config.train, folder)
    unit["reference"] = _reference(config.campaign, crystal, config.initial, unit)
    pools = {
        number: _pool(folder.root / stage.structures, species, config.train.min_dist, number, folder)
        for number, stage in enumerate(config.stages)
        if stage.structures is not None
    }
    return Protocol(config, config.campaign, crystal, label, config.train, unit, pools)


def _reference(
    campaign: CampaignTable, crystal: CrystalTable, initial: InitialTable, unit: dict[str, Structure]
) -> Structure:
    """Of a crystal its primitive cell; of a random alloy one alloy, drawn once for the whole campaign."""
    if crystal.composition is None:
        return unit["primitive"]
    return cells.occupied(cells.repeated(unit[initial.cell], initial.repeat), crystal.composition, campaign.seed)


def _pool(path: Path, species: list[str], min_dist: float, stage: int, folder: Folder) -> list[Structure]:
    pool = [structure for structure, _ in read_structures(path, species)]
    refuse_pool(pool, species, min_dist, f"structures of stage {stage + 1} in {folder.config}")
    return pool
