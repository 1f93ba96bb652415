"""A whole campaign with a potential that is no MTP: pair functions, graded by a committee."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_mtp import ONE_THREAD

from tasks.mtp.data_sets import read_samples

CAMPAIGN = """\
[campaign]
name = "pair"
species = ["Al"]

[crystal]
structure = "fcc"
a = 4.05

[initial]
train = 5
holdout = 1
strain = 0.03
eos_points = 0

[[stages]]
repeat = [1, 1, 2]
temperatures = [500]
max_generations = 2

[explore]
steps = 100
timestep_fs = 2.0
grade = "committee"
gamma_save = 1e-5
gamma_break = 5.0
clean_sweeps = 1

[select]
method = "highest"
limit = 1

[converge]
flat = 0

[label]
engine = "ase"

[label.ase]
calculator = "ase.calculators.emt.EMT"

[train]
engine = "pair"
members = 2
min_dist = 2.0
max_dist = 5.5
"""


@pytest.mark.engine
def test_a_campaign_with_pair_potentials_and_a_committee_converges(tmp_path: Path) -> None:
    (tmp_path / "pilot.toml").write_text(CAMPAIGN)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pilot", "run", "--plain", "--folder", str(tmp_path)],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "stage 1 has converged: 1 full sweep under γ_break" in said
    members = sorted(tmp_path.glob("potentials/s1g00*/pair.json"))
    assert len(members) == 2
    found = [json.loads(path.read_text())["pairs"]["Al-Al"] for path in members]
    assert found[0] != found[1]
    kept = sorted(tmp_path.rglob("selected.cfg"))[0]
    chosen = read_samples(kept, ["Al"])
    assert len(chosen) == 1
    assert all(1e-5 < float(sample.features["MV_grade"]) < 5.0 for sample in chosen)
