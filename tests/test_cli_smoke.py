"""A whole campaign through the command line: `pilot doctor --smoke`, and the export of what it made."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from command_line import Typist

from pilot.cli import smoke
from tasks.formats.cfg import read_cfg
from tasks.formats.mtp import read_potential


@pytest.mark.engine
def test_a_campaign_without_dft_and_its_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, *_, **__: kept.append(Path(path)))
        out = Typist(tmp_path, capsys, monkeypatch)("doctor", "--smoke").out
    assert "smoke test passed" in out
    typed = Typist(kept[-1], capsys, monkeypatch)
    assert typed.folder.config.read_text() == smoke.CAMPAIGN
    assert "structures in the training set" in typed("status").out
    written = typed("export", "--to", "for others").out.split("\n")
    place = typed.folder.root / "for others"
    assert {Path(line).name for line in written if line} == {path.name for path in place.iterdir()}
    check_export(place)
    (select,) = json.loads(typed("status", "--tasks", "--kind", "select", "--limit", "1", "--json").out)
    assert "gamma max" in typed("show", str(select["id"])).out


def check_export(place: Path) -> None:
    images = ase.io.read(place / "train.extxyz", index=":")
    configurations = list(read_cfg(place / "train.cfg"))
    with ase.db.connect(place / "train.db") as database:
        energies = [row.energy for row in database.select()]
    assert len(images) == len(configurations) == len(energies) >= 14
    assert np.allclose([atoms.get_potential_energy() for atoms in images], energies)
    with (place / "provenance.csv").open() as file:
        lines = list(csv.DictReader(file))
    train = [line for line in lines if line["set"] == "train"]
    assert np.allclose([float(line["energy_eV"]) for line in train], energies)
    assert all((place.parent / line["files"]).is_dir() for line in lines)
    read_potential(place / "potential.mtp")
    readme = (place / "README.txt").read_text()
    assert f"the training set: {len(images)} structures" in readme
    assert "Errors on holdout (4 structures)" in readme
    assert "ase.calculators.emt.EMT" in readme
