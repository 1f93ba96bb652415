"""The page of a report: whole, closed in itself, safe, and the same numbers as its files; while a pilot runs, too."""

import csv
import os
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_line import Typist, living_pilot, wait_for
from folders import make_folder
from recorded_campaign import Size, record_campaign
from started_pilot import SLEEP, given, put

from db import dataset
from db.engine import open_reader
from pilot.config import read_config
from pilot.folder import Folder
from pilot.report import machine_figures, timeline, writing
from pilot.report.reading import read_records
from pilot.report.writing import Written, write_report
from pilot.snapshot import read_snapshot
from pilot.supervisor import run_pilot

#: labels by a calculator of ASE, one small fit, one exploration: all kinds of steps in a few seconds
TINY = """
[campaign]
name = "tiny <b>&amp;"
species = ["Al"]
[crystal]
structure = "fcc"
a = 4.05
[initial]
train = 3
holdout = 1
eos_points = 5
repeat = [1, 1, 1]
strain = 0.1
[[stages]]
repeat = [1, 1, 1]
temperatures = [600]
max_generations = 1
[explore]
steps = 40
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 2
min_dist = 1.8
max_dist = 4.5
radial_basis_size = 4
first_iterations = 3
iterations = 2
[run]
cores = 2
"""
_EMPTY_TAGS = {"meta", "link", "br", "img", "hr"}
_EVIL = "<script>alert(1)</script>"


class _Checker(HTMLParser):
    """Whether what is opened is closed, ids are used once, and links in the page lead somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src"}:
                (self.links if (value or "").startswith("#") else self.addresses).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def check(page: Path) -> _Checker:
    """The page is well-formed HTML that asks nobody for anything."""
    text = page.read_text()
    checker = _Checker()
    checker.feed(text)
    checker.close()
    assert checker.wrong == []
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert {link[1:] for link in checker.links} <= set(checker.ids)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not checker.tags & {"script", "iframe", "object", "embed"}
    for address in checker.addresses:
        assert address.startswith("data:") or (page.parent / address).is_file(), address
    return checker


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A campaign of two stages with all that can be asked for."""
    return record_campaign(tmp_path_factory.mktemp("campaign") / "recorded", name=_EVIL)


@pytest.fixture(scope="module")
def written(recorded: Folder) -> Written:
    """Its report, somewhere else."""
    return write_report(recorded, recorded.root.parent / "elsewhere" / "pb.html", png=False)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are computed but not drawn: that takes most of the time."""
    svg = '<svg viewBox="0 0 1 1"></svg>'
    monkeypatch.setattr(writing, "render", lambda _figure, png: (svg, b""))


def test_the_page_of_a_campaign_shows_every_figure(written: Written) -> None:
    assert written.lacking == ("failed-tasks",)
    checker = check(written.page)
    for name in written.shown:
        assert name in checker.ids
        assert rows(written.figures / f"{name}.csv"), name
    pictures = {path.stem for path in written.figures.glob("*.svg")}
    tables = {"stages", "elastic-constants", "failures", "label-settings", "versions"}
    assert pictures == set(written.shown) - tables
    text = written.page.read_text()
    for picture in pictures:
        ET.parse(written.figures / f"{picture}.svg")
        assert f'<g id="{picture}-figure_1">' in text


def test_the_data_beside_the_page_are_those_of_the_database(recorded: Folder, written: Written) -> None:
    assert written.figures == recorded.root.parent / "elsewhere" / "pb"
    with open_reader(recorded.copy) as connection:
        generations = dataset.read_generations(connection)
        labels = sum(dataset.count_labels(connection).values())
    runs = rows(written.figures / "dft-runs.csv")
    assert [(int(row["stage"]), int(row["generation"])) for row in runs] == [
        (g.stage + 1, g.number) for g in generations
    ]
    assert sum(int(row["labelled"]) for row in runs) == labels
    errors = rows(written.figures / "force-error.csv")
    for row, generation in zip(errors, generations, strict=True):
        facts = generation.facts["evaluation"]
        assert float(row["holdout_meV_A"]) == pytest.approx(1000 * facts["holdout"]["eps_F"], rel=1e-6)
        assert float(row["holdout_95_percent_meV_A"]) == pytest.approx(4.0)
    lattice = rows(written.figures / "lattice-parameter.csv")
    found = [generation.facts["evaluation"]["lattice_parameter"] for generation in generations]
    assert [float(row["lattice_parameter_A"]) for row in lattice] == pytest.approx(found, rel=1e-6)
    # half of the explorations are in an archive, and each has left 4001 steps in its histogram
    histogram = rows(written.figures / "gamma-histogram.csv")
    explored = rows(written.figures / "md-steps.csv")
    assert sum(int(row["steps"]) for row in histogram) == 4001 * len(explored)
    assert len(rows(written.figures / "gamma-force-error.csv")) == 10 * (len(generations) - 1)


def test_what_users_write_is_text_in_the_page(written: Written) -> None:
    assert "script" not in check(written.page).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in written.page.read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_report_does_without_a_pilot_toml_that_has_a_mistake(recorded: Folder, tmp_path: Path) -> None:
    good = recorded.config.read_text()
    said: list[str] = []
    try:
        recorded.config.write_text("[campaign]\nname = 7\n")
        written = write_report(recorded, tmp_path / "report.html", png=False, said=said.append)
    finally:
        recorded.config.write_text(good)
    assert "dft-runs" in written.shown
    assert "has a mistake" in said[0]
    assert "has a mistake" in written.page.read_text()
    check(written.page)


@pytest.mark.usefixtures("undrawn")
def test_files_that_are_gone_leave_their_figures_empty(tmp_path: Path) -> None:
    folder = record_campaign(tmp_path / "recorded", Size(generations=(2,), labels=2, nodes=1, allocations=1))
    for path in folder.runs.rglob("*.*"):
        path.unlink()
    written = write_report(folder, tmp_path / "report.html", png=False)
    assert {"gamma-histogram", "gamma-force-error", "parity-forces"} <= set(written.lacking)
    assert "gamma-max" in written.shown
    check(written.page)


def test_many_attempts_are_shown_as_busy_cores_and_few_as_bars(recorded: Folder, tmp_path: Path) -> None:
    few = read_records(recorded)
    assert "Each bar is an attempt" in timeline.timeline(few).says
    many = record_campaign(tmp_path / "many", Size(generations=(3,), labels=160, nodes=2), packed=False)
    records = read_records(many)
    figure = timeline.timeline(records)
    assert "Busy cores" in figure.says
    busy = sum(row[4] for row in figure.data.rows if isinstance(row[4], float))
    hours = sum(row[2] for row in machine_figures.core_hours(records).data.rows if isinstance(row[2], float))
    width = min(row[2] for row in figure.data.rows if isinstance(row[2], float) and row[2] > 0.0)
    assert busy * width == pytest.approx(hours, rel=0.01)


def test_a_folder_without_a_campaign_has_a_page_about_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "folder", "[run]\ncores = 2\n")
    typist = Typist(folder.root, capsys, monkeypatch)
    assert "there are no tasks" in typist.fails("report", code=3)
    put(folder, "add", tasks=[given("false") | {"name": _EVIL}, given(*SLEEP), given("true")])
    with living_pilot(folder):
        wait_for(
            lambda: (seen := read_records(folder)).failed != [] and any(not one.verdict for one in seen.ran),
            "the tasks do not run",
        )
        said = typist("report").out
        assert str(folder.results / "report.html") in said
    checker = check(folder.results / "report.html")
    assert {"core-hours", "timeline", "failures", "failed-tasks"} <= set(checker.ids)
    assert not {"dft-runs", "gamma-max", "stages"} & set(checker.ids)
    text = (folder.results / "report.html").read_text()
    assert "a pilot is at work" in text
    assert "no pilot is at work" not in text
    assert "&lt;script&gt;" in text
    fates = {row["fate"] for row in rows(folder.results / "report" / "core-hours.csv")}
    assert {"failed", "under way"} <= fates


@pytest.mark.usefixtures("undrawn")
def test_a_young_campaign_says_what_it_has_not_got_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "folder", TINY)
    put(folder, "add", tasks=[given("true")])
    typist = Typist(folder.root, capsys, monkeypatch)
    assert "nothing to show yet for" in typist("report").out
    text = (folder.results / "report.html").read_text()
    assert text.count("Nothing to show yet") > 12
    check(folder.results / "report.html")


def test_a_real_campaign_has_its_figures(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", TINY)
    run_pilot(folder, read_config(folder.config))
    written = write_report(folder, folder.results / "report.html", png=False)
    assert {"dft-runs", "gamma-max", "gamma-mean", "gamma-histogram", "md-steps", "force-error"} <= set(written.shown)
    assert {"lattice-parameter", "energy-volume", "parity-energy", "parity-forces"} <= set(written.shown)
    assert {"core-hours", "allocations", "timeline", "dft-times", "label-settings"} <= set(written.shown)
    text = check(written.page) and written.page.read_text()
    assert "tiny &lt;b&gt;&amp;amp;" in text
    (stage,) = rows(written.figures / "stages.csv")
    assert (stage["cell"], stage["atoms"]) == ("[1, 1, 1]", "1")
    snapshot = read_snapshot(folder)
    assert snapshot is not None
    assert snapshot.campaign is not None
    assert stage["outcome"] == snapshot.campaign.state
    assert snapshot.campaign.generations[-1].why in text


def test_without_a_pilot_the_database_counts_where_its_copy_is_older(recorded: Folder, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", recorded.config.read_text())
    shutil.copy2(recorded.database, folder.database)
    assert len(read_records(folder).generations) == 8
    young = make_folder(tmp_path / "young", "[run]\ncores = 1\n")
    put(young, "add", tasks=[given("true")])
    shutil.copy(young.copy, folder.copy)
    os.utime(folder.copy, (folder.database.stat().st_mtime + 10,) * 2)
    assert read_records(folder).generations == []
    os.utime(folder.copy, (folder.database.stat().st_mtime - 10,) * 2)
    assert len(read_records(folder).generations) == 8
