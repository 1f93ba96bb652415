"""Writing a report: the page, and beside it a folder with each figure as data and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from db.errors import PilotError
from db.files import storage_error, write_whole
from pilot import host
from pilot.cli.presence import look
from pilot.config import Config, read_config
from pilot.folder import Folder, keep_mode
from pilot.report import (
    gamma,
    learning,
    machine_figures,
    parity,
    physics,
    provenance,
    questions,
    study,
    summary,
    timeline,
)
from pilot.report.drawing import inlined, render
from pilot.report.figure import Figure, Table
from pilot.report.page import Chapter, Page, html
from pilot.report.reading import read_records
from pilot.report.records import Done, Records
from pilot.report.shelf import Shelf
from pilot.report.turns import Turn, turns

Item = Figure | Table


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        page: the file.
        figures: the folder with the data and pictures.
        shown, lacking: names of figures and tables.
    """

    page: Path
    figures: Path
    shown: tuple[str, ...]
    lacking: tuple[str, ...]


def write_report(folder: Folder, output: Path, *, png: bool, said: Callable[[str], None] = lambda _: None) -> Written:
    """Write the report of a folder.

    Args:
        output: the page; the folder beside it is called like it, without its ending.
        png: write each figure as PNG, too.
        said: told what the user should know.

    Raises:
        MissingError: nothing has been published yet.
        StorageError: something cannot be read or written.
    """
    config, configuration, remarks = _configuration(folder)
    for remark in remarks:
        said(remark)
    records = read_records(folder)
    with Shelf(folder) as shelf:
        chapters = _chapters(records, config, shelf)
    beside = output.with_suffix("") if output.suffix else output.with_name(f"{output.name}-figures")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        keep_mode(folder.root, beside)
    except OSError as error:
        raise storage_error(error, beside) from error
    pictures = {item.name: picture for item in _items(chapters) if (picture := _write(item, beside, png=png))}
    page = Page(
        head=summary.head(records, turns(records), config, folder.root.name),
        written=_written(folder, records),
        chapters=chapters,
        pictures=pictures,
        folder=beside.name,
        endings=("csv", "svg", "png") if png else ("csv", "svg"),
        texts=provenance.texts(records, configuration),
        remarks=remarks,
    )
    write_whole(output, html(page), durable=False)
    lacks = {item.name: bool(item.lacks) for item in _items(chapters)}
    shown = tuple(name for name, lacking in lacks.items() if not lacking)
    return Written(output, beside, shown, tuple(name for name, lacking in lacks.items() if lacking))


def _configuration(folder: Folder) -> tuple[Config | None, str, list[str]]:
    """pilot.toml, its text, and what is wrong with it: a report does without."""
    try:
        text = folder.config.read_text()
    except (OSError, UnicodeDecodeError):
        return None, "", ["pilot.toml cannot be read: what stands only there is left out"]
    try:
        return read_config(folder.config), text, []
    except PilotError as error:
        return None, text, [f"pilot.toml has a mistake ({error.what}): what stands only there is left out"]


def _chapters(records: Records, config: Config | None, shelf: Shelf) -> list[Chapter]:
    """All that the page shows, in its order; a folder without a campaign has the machine only."""
    every = turns(records)
    found: list[Chapter] = []
    if every or (config is not None and config.campaign is not None):
        found += _campaign(records, every, config, shelf)
    machinery: list[Item] = [
        machine_figures.core_hours(records),
        machine_figures.allocations(records),
        timeline.timeline(records),
        machine_figures.label_times(records),
        machine_figures.failures(records),
        machine_figures.lost(records),
    ]
    if not found:
        machinery = [item for item in machinery if item.name != "dft-times" or not item.lacks]
    found.append(Chapter("machine", "The machine", machinery))
    sources: list[Item] = [provenance.versions(config)]
    if records.labels:
        sources = [provenance.label_settings(records), *sources]
    found.append(Chapter("provenance", "Provenance", sources))
    return found


def _campaign(records: Records, every: Sequence[Turn], config: Config | None, shelf: Shelf) -> list[Chapter]:
    fits = study.points(records.trained, records.evaluated)
    found: list[Chapter] = []
    if config is None or not config.study or config.stages:
        found += _stages(records, every, config, shelf)
    if fits or (config is not None and config.study):
        if fits:
            items: list[Item] = [study.figure(fits), study.table(fits)]
        else:
            items = [Table("study-levels", "Level of the potential", "", study.table([]).data, lacks="no fit is done")]
        found.append(Chapter("study", "Study of levels", items))
    return found


def _stages(records: Records, every: Sequence[Turn], config: Config | None, shelf: Shelf) -> list[Chapter]:
    saves, breaks = _thresholds(config)
    histograms = gamma.histograms(every, records.explored, shelf.gamma)
    sampled = questions.asked(every, records.evaluated, lambda done: shelf.arrays(done, "parity.npz"))
    arrays, of = _newest_parity(records, every, shelf)
    tolerance = None if config is None else config.converge.lattice_parameter
    return [
        Chapter("overview", "Overview", [summary.stages(every, records, config)]),
        Chapter(
            "learning",
            "Learning",
            [
                learning.dft_runs(every),
                learning.to_convergence(every),
                learning.errors(every, "eps_F"),
                learning.errors(every, "eps_E_per_atom"),
                learning.reliability(records, every),
            ],
        ),
        Chapter(
            "extrapolation",
            "Extrapolation",
            [
                learning.gamma_max(every, breaks),
                learning.gamma_mean(every),
                gamma.distribution(histograms, saves, breaks),
                gamma.course(histograms),
                questions.against(sampled, force=True),
                questions.against(sampled, force=False),
            ],
        ),
        Chapter(
            "physics",
            "Physics",
            [
                physics.lattice(every, tolerance),
                physics.energy_volume(every),
                physics.elastic(every),
                parity.energies(arrays, of),
                parity.forces(arrays, of),
            ],
        ),
    ]


def _thresholds(config: Config | None) -> tuple[dict[int, float], dict[int, float]]:
    """γ_save and γ_break of each stage, from 1."""
    if config is None:
        return {}, {}
    explore = {place: config.explore.of_stage(stage) for place, stage in enumerate(config.stages, 1)}
    saves = {stage: table.gamma_save for stage, table in explore.items()}
    return saves, {stage: table.gamma_break for stage, table in explore.items()}


def _newest_parity(records: Records, every: Sequence[Turn], shelf: Shelf) -> tuple[parity.Arrays, str]:
    """What the newest evaluation that has it left for parity plots, and of which generation it is."""
    by_generation = {done.generation: done for done in records.evaluated if done.key.endswith("-evaluate")}
    for turn in reversed(every):
        done: Done | None = by_generation.get(turn.id)
        arrays = {} if done is None else shelf.arrays(done, "parity.npz")
        if arrays:
            return arrays, f"stage {turn.stage} generation {turn.number}"
    return {}, "the newest generation"


def _items(chapters: Sequence[Chapter]) -> list[Item]:
    return [item for chapter in chapters for item in chapter.items]


def _write(item: Item, beside: Path, *, png: bool) -> str:
    """Write the files of a figure or table; its picture for the page, empty where there is none."""
    if item.lacks:
        return ""
    write_whole(beside / f"{item.name}.csv", item.data.csv(), durable=False)
    if isinstance(item, Table):
        return ""
    svg, picture = render(item, png=png)
    write_whole(beside / f"{item.name}.svg", svg, durable=False)
    if png:
        write_whole(beside / f"{item.name}.png", picture, durable=False)
    return inlined(svg, item.name, escape(item.title, quote=True))


def _written(folder: Folder, records: Records) -> str:
    at, of = (datetime.fromtimestamp(moment, tz=UTC) for moment in (host.now(), records.now))
    try:
        works = "a pilot is at work" if look(folder).alive else "no pilot is at work"
    except PilotError:
        works = "whether a pilot is at work is not known"
    return (
        f"Written {at:%Y-%m-%d %H:%M} UTC by pilot {version('pilot-mtp')} in {folder.root}, of what was recorded until "
        f"{of:%Y-%m-%d %H:%M:%S} UTC; {works}."
    )
