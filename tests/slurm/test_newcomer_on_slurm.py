"""The way of a newcomer on a real SLURM: submit, look, and what is seen when things are not as usual."""

import os
from pathlib import Path

import pytest
from cluster import Cluster
from command_line import wait_for

from pilot.cli.app import run
from pilot.cli.presence import look
from pilot.folder import Folder


@pytest.fixture
def environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith(("SLURM_JOB", "PILOT_"))]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("environment")
def test_a_chain_in_a_folder_with_an_unusual_name_from_submit_to_its_end(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "Lithium – größe ä (2)"

    def said(command: str, *argv: str) -> str:
        capsys.readouterr()
        assert run([command, "--folder", str(root), *argv]) == 0
        return capsys.readouterr().out

    assert run(["init", str(root), "--site", "generic", "--account", "physics"]) == 0
    said("add", "--shell", "--", f"until test -e {tmp_path}/go; do sleep 0.1; done")
    # it waits until it is let go, so that what is shown meanwhile is known
    said("submit", "--chain", "--", "--hold", "--time=10")
    (job,) = cluster.run("squeue", "-h", "-o", "%i").split()
    assert f"no pilot is alive yet: job {job} was submitted" in said("status")
    cluster.run("scontrol", "release", job)
    folder = Folder(root)
    wait_for(lambda: look(folder).alive, "the pilot does not come to life")
    wait_for(lambda: len(cluster.run("squeue", "-h", "-o", "%i").split()) == 2, "the next one is not queued")
    assert f"job {job})" in said("status")
    (tmp_path / "go").touch()
    cluster.wait_for_job(job, "COMPLETED", timeout=60)
    wait_for(lambda: not cluster.run("squeue", "-h", "-o", "%i").split(), "the next one is still queued")
    shown = said("status")
    assert "none is needed" in shown
    assert "submitted" not in shown
    assert "nothing is left that could run" in said("status", "--allocations")
