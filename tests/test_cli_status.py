"""`pilot status`: quick, honest about its age, and readable at 80 columns."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Typist
from rich.console import Console
from rich.text import Text

from pilot import host
from pilot.cli.app import command
from pilot.cli.quick import quick_status
from pilot.cli.status_print import StatusOptions
from pilot.cli.view import Block, fitted, status_blocks
from pilot.folder import Folder
from pilot.lease import take_lease
from pilot.snapshot import (
    CampaignStatus,
    FailureStatus,
    GenerationStatus,
    NodeStatus,
    PilotStatus,
    RunningStatus,
    Snapshot,
)

HEAVY = {"sqlalchemy", "ase", "numpy", "mpi4py", "pydantic", "scipy", "typer"}


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    (tmp_path / "pilot.toml").touch()
    return Typist(tmp_path, capsys, monkeypatch)


def snapshot(folder: Folder) -> Snapshot:
    """A campaign in the middle of its second generation."""
    errors = {"n": 12, "eps_F": 0.0312, "eps_E_per_atom": 0.00171}
    first = GenerationStatus(
        stage=1, number=0, outcome="", why="", explorations=None, broke=None, gamma_max=None, gamma_mean=None,
        preselected=None, selected=None, labels=55, labelled=54, labels_failed=1, training_set=36, holdout=errors,
        worse=False, lattice_parameter=3.4371,
    )  # fmt: skip
    second = dataclasses.replace(
        first, number=1, outcome="same stage", why="3 of 4 explorations broke", explorations=4, broke=3,
        gamma_max=1234.5, gamma_mean=2.0, preselected=1834, selected=21, labels=21, labelled=3, labels_failed=0,
        worse=True,
    )  # fmt: skip
    return Snapshot(
        at=host.now() - 2,
        folder=str(folder.root),
        pilot=PilotStatus(1, "active", host.hostname(), 1, None, host.now() - 100, host.now() + 7200),
        nodes=[NodeStatus("node01", 64, 48, 500_000)],
        tasks={"label": {"waiting": 2, "ready": 7, "running": 12, "done": 57, "failed": 1}, "train": {"waiting": 1}},
        why_waiting={
            "label": {"ready: waits for free cores": 7, "waits for the tasks it needs": 2},
            "train": {"can never start: a task it needs has failed or was cancelled": 1},
        },
        running=[
            RunningStatus(i, "label", "label s1g01 #" + "x" * 60, "node01", 4, host.now() - i, 60.0)
            for i in range(40, 52)
        ],
        failures=[FailureStatus(17, "label initial train 17", "not converged: the SCF did not converge in 100 steps")],
        campaign=CampaignStatus("li", 6, 1, 1, "running", 36, 3.4412, [first, second]),
        useful_core_s=900.0,
        reserved_core_s=1000.0,
    )


def publish(folder: Folder) -> None:
    folder.make()
    folder.status.write_text(snapshot(folder).to_json())


@pytest.mark.parametrize("argv", [[], ["--json"], ["--all"]])
def test_nothing_heavy_is_imported(typed: Typist, argv: list[str]) -> None:
    publish(typed.folder)
    script = (
        "import sys; from pilot.__main__ import main; sys.argv = ['pilot', 'status', *sys.argv[1:]]; "
        "code = main(); print(code, *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *argv], capture_output=True, text=True, check=True, cwd=typed.folder.root
    )
    code, *modules = done.stderr.split()
    assert code == "0"
    assert not HEAVY & set(modules)
    assert ("rich" in modules) is (argv != ["--json"])


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["status"], StatusOptions()),
        (["status", "--json", "-f", "x"], StatusOptions(as_json=True, folder=Path("x"))),
        (["status", "--watch", "--all", "--folder", "x"], StatusOptions(watch=True, everything=True, folder=Path("x"))),
        (["status", "-w"], StatusOptions(watch=True)),
    ],
)
def test_the_short_way_understands_what_the_long_way_does(argv: list[str], options: StatusOptions) -> None:
    assert quick_status(argv) == options
    context = command("status").make_context("status", argv[1:])
    long_way = {name: context.params[name] for name in ("watch", "as_json", "everything", "folder")}
    assert StatusOptions(**long_way) == options


@pytest.mark.parametrize(
    "argv", [[], ["run"], ["status", "--tasks"], ["status", "--help"], ["status", "-f"], ["--json"]]
)
def test_the_short_way_leaves_the_rest_to_the_long_way(argv: list[str]) -> None:
    assert quick_status(argv) is None


def test_json_says_whether_a_pilot_is_alive_and_how_old_it_is(typed: Typist) -> None:
    fresh = json.loads(typed("status", "--json").out)
    assert (fresh["schema"], fresh["alive"], fresh["age_s"], fresh["pilot"]) == (1, False, None, None)
    publish(typed.folder)
    data = json.loads(typed("status", "--json").out)
    assert data["alive"] is False
    assert 2.0 <= data["age_s"] < 60.0
    assert data["campaign"]["generations"][1]["holdout"]["eps_F"] == 0.0312
    published = json.loads(typed.folder.status.read_text())
    assert {key: data[key] for key in published} == published


def test_it_says_first_of_all_that_the_pilot_has_died(typed: Typist) -> None:
    publish(typed.folder)
    first, second, third = typed("status").out.splitlines()[:3]
    assert first == "NO PILOT IS ALIVE IN THIS FOLDER"
    assert second.startswith("pilot 1 on ")
    assert "has died without a word" in second
    assert third.startswith("as published 2.")
    out = typed("status").out
    assert "ready: waits for a pilot" in out
    assert "next:  `pilot show 17`" in out


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_width(typed: Typist, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(typed.folder)
    monkeypatch.setenv("COLUMNS", str(width))
    lease = take_lease(typed.folder, "run")
    lease.beat(1)
    lines = typed("status").out.splitlines()
    lease.release()
    assert max(len(line) for line in lines) <= width
    text = "\n".join(lines)
    assert f"pilot 1 is active on {host.hostname()}" in text
    assert "left" in lines[0] + lines[1]
    for fact in ("48 of 64 cores busy on node01", "90% of core-time useful", "and 2 more", "3 of 4 explorations broke"):
        assert fact in " ".join(text.split())
    (first,) = [line for line in lines if line.startswith("s1g00")]
    assert first.split() == ["s1g00", "–", "–", "–", "–", "54/55", "(1)", "36", "31.2", "1.71", "3.437", "(-0.004)"]
    (second,) = [line for line in lines if line.startswith("s1g01")]
    assert second.split()[:6] == ["s1g01", "3/4", "1.23e+03", "1834", "21", "3/21"]
    assert "31.2*" in second
    assert "* worse on the holdout" in text


def test_what_does_not_fit_the_height_is_left_out(typed: Typist) -> None:
    publish(typed.folder)
    blocks = status_blocks(typed.folder)
    low, high = drawn(blocks, 24), drawn(blocks, 45)
    assert len(low.splitlines()) < 24
    for fact in ("NO PILOT IS ALIVE", "stage 1 of 6", "waiting  ready", "`pilot show 17`"):
        assert fact in low
    assert "why they wait" not in low
    for fact in ("why they wait", "s1g01"):
        assert fact in high
    assert drawn([Block(0, Text("a\n" * 50)), Block(1, Text("b"))], 24).startswith("a")


def drawn(blocks: list[Block], height: int) -> str:
    """The blocks on a terminal of this height."""
    console = Console(width=80, height=height)
    with console.capture() as captured:
        console.print(fitted(console, blocks))
    return captured.get()
