"""`pilot doctor --smoke`: a whole campaign in about a minute, with no DFT, in a temporary folder."""

import logging
import shutil
import tempfile
from pathlib import Path

from rich.text import Text

from db.errors import PilotError
from pilot import host
from pilot.cli.headline import count
from pilot.cli.narrator import Narrator
from pilot.cli.output import ERROR, GOOD, print_error, say, show
from pilot.cli.tables import failures, generations
from pilot.config import read_config
from pilot.durations import say_duration
from pilot.folder import Folder
from pilot.snapshot import CampaignStatus, Snapshot, read_snapshot
from pilot.supervisor import run_pilot

CAMPAIGN = """\
[campaign]
name = "smoke"
species = ["Al"]

[crystal]
structure = "fcc"
a = 4.05

[initial]
train = 14
holdout = 4
strain = 0.04
eos_points = 5

[[stages]]
repeat = [1, 1, 2]
temperatures = [300]
max_generations = 3

[explore]
steps = 300
timestep_fs = 2.0

[label]
engine = "ase"

[label.ase]
calculator = "ase.calculators.emt.EMT"

[train]
level = 4
min_dist = 2.0
max_dist = 5.0
iterations = 30
first_iterations = 60

[resources.label]
time_limit = "2 min"
"""
#: EMT's own lattice parameter is met much better; this tells a potential from nonsense.
_LATTICE_TOLERANCE = 0.1


def run_smoke() -> bool:
    """Run it and print how it went; whether all was well."""
    root = Path(tempfile.mkdtemp(prefix="pilot-smoke-"))
    folder = Folder(root)
    folder.config.write_text(CAMPAIGN)
    say(f"smoke test: a campaign for aluminium with ASE's EMT in {root}")
    began = host.monotonic()
    try:
        snapshot = _run(folder)
    except PilotError as error:
        print_error(error)
        return _verdict("it could not be run", root)
    if snapshot is None or snapshot.campaign is None:
        return _verdict("it has published nothing", root)
    show(generations(snapshot.campaign, None))
    say(f"{count(snapshot, 'done')} tasks done in {say_duration(host.monotonic() - began)}")
    if snapshot.failures:
        show(failures(snapshot.failures))
    wrong = _what_is_wrong(snapshot, snapshot.campaign)
    if not wrong:
        shutil.rmtree(root)
    return _verdict(wrong, root)


def _run(folder: Folder) -> Snapshot | None:
    log = logging.getLogger("pilot")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    log.addHandler(handler)
    try:
        run_pilot(folder, read_config(folder.config), Narrator(log, None, counts=False).hear)
    finally:
        log.removeHandler(handler)
        handler.close()
    return read_snapshot(folder)


def _what_is_wrong(snapshot: Snapshot, campaign: CampaignStatus) -> str:
    """The first thing that is not as it should be; empty if all is well."""
    failed = count(snapshot, "failed")
    if failed:
        return f"{failed} tasks have failed"
    if campaign.state not in {"converged", "not converged"}:
        return f"the campaign has not come to its end: {campaign.state}"
    found = [entry.lattice_parameter for entry in campaign.generations if entry.lattice_parameter is not None]
    reference = campaign.lattice_parameter_dft
    if not found or reference is None:
        return "no potential was evaluated"
    if abs(found[-1] - reference) > _LATTICE_TOLERANCE:
        return f"the lattice parameter is {found[-1]:.3f} Å and should be {reference:.3f} Å"
    return ""


def _verdict(wrong: str, root: Path) -> bool:
    if wrong:
        say(Text.assemble(("smoke test failed: ", ERROR), wrong))
        say(f"its folder was kept: `pilot status --folder {root}`")
    else:
        say(Text("smoke test passed", style=GOOD))
    return not wrong
