"""`pilot submit`, and what an allocation of a chain does at its ends, with a SLURM of three fake programs."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Typist
from fake_slurm import FakeSlurm

from db.errors import StateError
from pilot import host
from pilot.cli.batch_queue import BatchQueue
from pilot.cli.site_files import job_name
from pilot.cli.submitting import end_chain, queue_next
from pilot.cli.work_left import why_nothing_is_left
from pilot.config import Config, read_config
from pilot.folder import Folder
from pilot.lease import take_lease
from pilot.mailbox import post
from pilot.slurm import client
from pilot.slurm.parse import COLUMN
from pilot.snapshot import CampaignStatus, PilotStatus, Snapshot

CAMPAIGN = Config.model_validate(
    {
        "campaign": {"name": "al", "species": ["Al"]},
        "crystal": {"structure": "fcc", "a": 4.05},
        "stages": [{"repeat": [1, 1, 2], "temperatures": [300]}],
        "label": {"engine": "ase", "ase": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {"min_dist": 2.0},
    }
)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def typed(
    tmp_path: Path, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Typist:
    """In a folder with a script that is filled in, and something left to do."""
    root = tmp_path / "my folder"
    root.mkdir()
    typist = Typist(root, capsys, monkeypatch)
    typist("init", "--site", "generic", "--account", "FUA39_TEST")
    publish(typist.folder, ready=3, done=1)
    return typist


def publish(folder: Folder, *, state: str = "ended", doomed: int = 0, **tasks: int) -> Snapshot:
    """What a pilot has published before now."""
    pilot = PilotStatus(1, state, host.hostname(), 1, "17", host.now() - 100)
    why = {"command": {"can never start: a task it needs has failed or was cancelled": doomed}} if doomed else {}
    snapshot = Snapshot(host.now(), str(folder.root), pilot, tasks={"command": dict(tasks)}, why_waiting=why)
    folder.make()
    folder.status.write_text(snapshot.to_json())
    before = snapshot.at - 10
    os.utime(folder.config, (before, before))
    return snapshot


def line(folder: Folder, job: str, state: str, directory: Path | None = None, name: str = "") -> str:
    """A line of squeue."""
    where = str(directory or folder.root)
    columns = [job, state, "N/A", "N/A", "", "None", name or job_name(folder.root), where, "(null)"]
    return COLUMN.join(columns) + "\n"


def own(folder: Folder) -> list[str]:
    """The arguments that every sbatch gets."""
    return ["--parsable", "--dependency=singleton", f"--job-name={job_name(folder.root)}", f"--chdir={folder.root}"]


def test_a_script_is_handed_in(typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE", "PILOT_CHAIN", "PILOT_CHAIN_OPTIONS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    said = typed("submit", "--", "--nodes=4", "-t", "12:00:00").out
    assert said.startswith(f"submitted: job 4711 ({job_name(typed.folder.root)})\n")
    (call,) = slurm.calls("sbatch")
    script = str(typed.folder.root / "pilot.sh")
    # nothing of the job that it was typed in is handed on
    assert call == (
        [*own(typed.folder), "--nodes=4", "-t", "12:00:00", script],
        {"SLURM_CONF": "/etc/slurm/slurm.conf"},
    )
    ((asked, _),) = slurm.calls("squeue")
    assert asked[asked.index("--user") + 1] == str(os.getuid())


def test_the_id_is_read_behind_greetings_and_before_the_cluster(typed: Typist, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "Welcome to the cluster\n815;pitagora\n", "sbatch: info\n")
    assert "job 815 (" in typed("submit").out


def test_a_dry_run_shows_all_and_submits_nothing(typed: Typist, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "", "sbatch: Job 5 to start at noon\n")
    said = typed("submit", "--dry-run", "--chain", "--", "--nodes=4").out
    script = typed.folder.root / "pilot.sh"
    assert said.startswith(script.read_text().rstrip())
    assert f"PILOT_CHAIN=1 PILOT_CHAIN_OPTIONS=--nodes=4 sbatch {' '.join(own(typed.folder)[:3])} '--chdir=" in said
    assert said.endswith("\n# SLURM says: Job 5 to start at noon\n")
    ((argv, _),) = slurm.calls("sbatch")
    assert "--test-only" in argv
    slurm.says("sbatch", "", "allocation failure: Invalid partition name specified\n", 1)
    assert "Invalid partition name" in typed.fails("submit", "--dry-run", code=2)


def test_a_dry_run_needs_no_slurm(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(typed.folder.root))
    assert "# would be submitted by:\nsbatch --parsable" in typed("submit", "--dry-run").out
    said = typed.fails("submit", code=3)
    assert "there is no sbatch here: this machine knows no SLURM" in said
    assert "`pilot run` runs here and now" in said


def test_what_slurm_refuses_is_said_with_its_words(typed: Typist, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "", "sbatch: error: Batch job submission failed: Invalid account\n", 1)
    said = typed.fails("submit", code=2)
    assert "SLURM did not take the job: sbatch: error: Batch job submission failed: Invalid account" in said
    assert "see your accounts" in said


def test_a_queue_that_does_not_answer_stops_nothing(typed: Typist, slurm: FakeSlurm) -> None:
    slurm.says("squeue", "", "slurm_load_jobs error: Unable to contact slurm controller\n", 1)
    said = typed("submit")
    assert "Unable to contact slurm controller (code 1)); it goes on without: singleton" in said.err
    assert len(slurm.calls("sbatch")) == 1
    slurm.says("squeue", hangs=True)
    with pytest.raises(StateError, match="squeue did not answer within 1 s"):
        BatchQueue(os.environ, question_s=1.0).jobs(typed.folder.root, ["x"])


def test_sbatch_that_does_not_answer_may_have_worked(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.says("sbatch", hangs=True)
    monkeypatch.setattr(client, "SUBMIT_S", 1.0)
    assert "look with squeue -u $USER before you try again" in typed.fails("submit", code=5)


def test_a_script_that_is_not_filled_in_is_refused_with_its_line(typed: Typist, slurm: FakeSlurm) -> None:
    (typed.folder.root / "pilot.sh").unlink()
    said = typed.fails("submit", code=3)
    assert "there is no pilot.sh in this folder" in said
    assert f"`pilot init --site NAME '{typed.folder.root}'`" in said
    typed("init", "--site", "lumi-c")
    text = (typed.folder.root / "pilot.sh").read_text()
    number = text.splitlines().index("#SBATCH --account=CHANGE_ME") + 1
    for argv in (["submit"], ["submit", "--force"], ["submit", "--dry-run"]):
        assert f"line {number} is still to be filled in: #SBATCH --account=CHANGE_ME" in typed.fails(*argv, code=2)
    (typed.folder.root / "pilot.sh").write_text(text.replace("#SBATCH --account=CHANGE_ME\n", ""))
    typed("submit")
    (typed.folder.root / "pilot.sh").write_text("pilot run\n")
    assert "does not begin with #!/bin/bash" in typed.fails("submit", code=2)
    assert len(slurm.calls("sbatch")) == 1


def test_a_script_without_exec_is_warned_of(typed: Typist, slurm: FakeSlurm) -> None:
    path = typed.folder.root / "pilot.sh"
    text = path.read_text()
    path.write_text(text.replace("exec pilot run", "pilot run"))
    assert "has no line `exec pilot run`" in typed("submit").err
    path.write_text(text.replace("exec pilot run", "  exec /opt/my/bin/pilot run --plain"))
    assert typed("submit").err == ""


@pytest.mark.parametrize("option", ["--job-name=x", "-J", "--dependency=afterok:3", "--array=1-3", "--chdir=/", "-Dx"])
def test_options_that_would_undo_what_is_needed_are_refused(typed: Typist, slurm: FakeSlurm, option: str) -> None:
    assert f"{option} is not for `pilot submit`" in typed.fails("submit", "--", option, code=2)
    assert slurm.calls("sbatch") == []


def test_other_options_are_checked_too(typed: Typist, slurm: FakeSlurm) -> None:
    assert "'nodes=4' is no option of sbatch" in typed.fails("submit", "nodes=4", code=2)
    assert "--export=NONE is not for" in typed.fails("submit", "--chain", "--", "--export=NONE", code=2)
    typed("submit", "--", "--export=NONE", "--wait-all-nodes=1")
    assert slurm.calls("sbatch")[0][0][4:6] == ["--export=NONE", "--wait-all-nodes=1"]


def test_a_mistake_in_pilot_toml_is_found_before_it_waits_a_day(typed: Typist, slurm: FakeSlurm) -> None:
    typed.folder.config.write_text("[run]\ncorse = 2\n")
    assert "did you mean `cores`?" in typed.fails("submit", code=2)
    assert slurm.calls("sbatch") == []


def test_one_job_a_folder(typed: Typist, slurm: FakeSlurm) -> None:
    folder = typed.folder
    slurm.says("squeue", line(folder, "12", "PENDING"))
    for argv in (["submit"], ["submit", "--chain"], ["submit", "--dry-run"]):
        said = typed.fails(*argv, code=5)
        assert "job 12 of this folder waits in the queue already" in said
        assert "`squeue --start -j 12`" in said
    slurm.says("squeue", line(folder, "12", "RUNNING"))
    said = typed.fails("submit", code=5)
    assert "job 12 of this folder runs already" in said
    assert "`pilot submit --chain`" in said
    assert slurm.calls("sbatch") == []
    # with --chain one is queued behind it, and only one
    assert "job 4711" in typed("submit", "--chain").out
    slurm.says("squeue", line(folder, "12", "RUNNING") + line(folder, "4711", "PENDING"))
    assert "job 4711 of this folder waits" in typed.fails("submit", "--chain", code=5)


def test_jobs_of_other_folders_and_jobs_that_have_just_ended_do_not_count(typed: Typist, slurm: FakeSlurm) -> None:
    folder = typed.folder
    slurm.says(
        "squeue",
        line(folder, "1", "RUNNING", Path("/elsewhere"))
        + line(folder, "2", "PENDING", name="pilot-other-abcdef")
        + line(folder, "3", "COMPLETING"),
    )
    typed("submit")
    assert len(slurm.calls("sbatch")) == 1


def test_a_job_that_was_handed_in_by_hand_or_through_a_link_is_known(typed: Typist, slurm: FakeSlurm) -> None:
    folder, script = typed.folder, typed.folder.root / "pilot.sh"
    script.write_text(script.read_text().replace(f"--job-name={job_name(folder.root)}", '--job-name="mine"'))
    slurm.says("squeue", line(folder, "12", "PENDING", name="mine"))
    assert "job 12 of this folder" in typed.fails("submit", code=5)
    link = folder.root.parent / "link"
    link.symlink_to(folder.root)
    slurm.says("squeue", line(folder, "13", "PENDING", link))
    assert "job 13 of this folder" in typed.fails("submit", "--folder", str(link), code=5)


def test_a_folder_that_was_copied_gets_a_name_of_its_own(typed: Typist, slurm: FakeSlurm) -> None:
    copy = typed.folder.root.parent / "copy"
    shutil.copytree(typed.folder.root, copy)
    typed("submit", "--folder", str(copy))
    ((argv, _),) = slurm.calls("sbatch")
    assert argv[2] == f"--job-name={job_name(copy)}" != f"--job-name={job_name(typed.folder.root)}"
    assert argv[-1] == str(copy / "pilot.sh")


def test_a_pilot_that_is_no_job_of_ours_is_not_joined(typed: Typist, slurm: FakeSlurm) -> None:
    lease = take_lease(typed.folder, "run")
    lease.beat(1)
    try:
        for argv in (["submit"], ["submit", "--chain"]):
            said = typed.fails(*argv, code=5)
            assert "a pilot is alive in this folder" in said
            assert "outside of SLURM" in said
    finally:
        lease.release()
    typed("submit")
    assert len(slurm.calls("sbatch")) == 1


def test_nothing_is_submitted_where_nothing_is_left_to_do(typed: Typist, slurm: FakeSlurm) -> None:
    publish(typed.folder, done=3, failed=1)
    said = typed("submit").out
    assert said.startswith("nothing was submitted: all tasks have ended\nnext:  `pilot status`")
    assert slurm.calls("sbatch") == []
    assert "submitted: job" in typed("submit", "--force").out
    typed.folder.status.unlink()
    assert "no task was added yet, and pilot.toml describes no campaign" in typed("submit").out


def left(folder: Folder, config: Config, snapshot: Snapshot) -> str:
    folder.status.write_text(snapshot.to_json())
    return why_nothing_is_left(folder, config)


def test_what_is_left_is_read_off_what_was_published(typed: Typist) -> None:
    folder, config = typed.folder, read_config(typed.folder.config)
    ended = publish(folder, done=3, waiting=2, doomed=2)
    assert left(folder, config, ended) == "all tasks have ended; 2 can never start, as what they need has failed"
    # it died, and its attempts are yet to be judged; or it works still
    assert ended.pilot is not None
    assert left(folder, config, replace(ended, pilot=replace(ended.pilot, state="active"))) == ""
    # a task that is too large for the nodes of the last allocation may fit into those of the next
    too_large = {"command": {"needs 4096 cores on one node; the largest node has 2": 1}}
    assert left(folder, config, replace(ended, tasks={"command": {"ready": 1}}, why_waiting=too_large)) == ""
    # the campaign has not begun; it has ended
    assert left(folder, CAMPAIGN, replace(ended, pilot=None)) == ""
    campaign = CampaignStatus("al", 1, 1, 3, "converged", 36, None, [])
    assert left(folder, CAMPAIGN, replace(ended, campaign=campaign)).endswith("the campaign has ended: converged")
    folder.status.unlink()
    assert why_nothing_is_left(folder, CAMPAIGN) == ""
    folder.status.write_text("{")
    assert why_nothing_is_left(folder, config) == ""


def test_what_came_since_may_be_work(typed: Typist) -> None:
    folder, config = typed.folder, read_config(typed.folder.config)
    publish(folder, done=3)
    assert why_nothing_is_left(folder, config) != ""
    later = host.now() + 5
    os.utime(folder.config, (later, later))
    assert why_nothing_is_left(folder, config) == ""
    publish(folder, done=3)
    post(folder, "add", {"tasks": []})
    assert why_nothing_is_left(folder, config) == ""


# ---- chains


def job(chain: str = "1", **more: str) -> dict[str, str]:
    """The environment of an allocation of a chain."""
    return dict(os.environ) | {"SLURM_JOB_ID": "100", "SLURM_RESTART_COUNT": "2", "PILOT_CHAIN": chain} | more


def test_a_chain_begins_with_its_mark_and_its_options(typed: Typist, slurm: FakeSlurm) -> None:
    assert "each allocation queues the next one" in typed("submit", "--chain", "--", "--nodes=4", "--comment=a b").out
    ((argv, environ),) = slurm.calls("sbatch")
    assert argv[4:] == ["--export=ALL", "--nodes=4", "--comment=a b", str(typed.folder.root / "pilot.sh")]
    assert environ == {"PILOT_CHAIN": "1", "PILOT_CHAIN_OPTIONS": "--nodes=4 '--comment=a b'"}


def test_an_allocation_queues_the_next_one_with_the_same_options(typed: Typist, slurm: FakeSlurm) -> None:
    slurm.says("squeue", line(typed.folder, "100", "RUNNING"))
    environ = job(PILOT_CHAIN_OPTIONS="--nodes=4 '--comment=a b'")
    assert queue_next(typed.folder, environ) == "the next allocation is queued: job 4711"
    ((argv, handed_on),) = slurm.calls("sbatch")
    assert argv[:-1] == [*own(typed.folder), "--export=ALL", "--nodes=4", "--comment=a b"]
    assert handed_on == {"PILOT_CHAIN": "1:0", "PILOT_CHAIN_OPTIONS": "--nodes=4 '--comment=a b'"}
    slurm.says("squeue", line(typed.folder, "100", "RUNNING") + line(typed.folder, "4711", "PENDING"))
    assert queue_next(typed.folder, environ) == "the next allocation is queued already: job 4711"
    assert len(slurm.calls("sbatch")) == 1


def test_outside_of_a_chain_nothing_is_done(typed: Typist, slurm: FakeSlurm) -> None:
    for environ in ({}, {"SLURM_JOB_ID": "3"}, {"PILOT_CHAIN": "1"}):
        assert queue_next(typed.folder, os.environ | environ) == ""
        assert end_chain(typed.folder, os.environ | environ) == ""
    assert slurm.calls("squeue") == slurm.calls("sbatch") == []


def test_a_chain_ends_when_nothing_is_left(typed: Typist, slurm: FakeSlurm) -> None:
    folder = typed.folder
    slurm.says(
        "squeue",
        line(folder, "100", "RUNNING")
        + line(folder, "101", "PENDING")
        + line(folder, "7", "PENDING", Path("/elsewhere"))
        + line(folder, "8", "PENDING", name="other"),
    )
    assert end_chain(folder, job()) == ""
    assert slurm.calls("scancel") == []
    publish(folder, done=4)
    assert end_chain(folder, job()) == "job 101 was taken out of the queue: all tasks have ended"
    # ours, by its id, and only if it waits still
    assert [argv for argv, _ in slurm.calls("scancel")] == [["--state=PENDING", "101"]]
    assert queue_next(folder, job()) == "no further allocation is queued: all tasks have ended"
    slurm.says("squeue", line(folder, "100", "RUNNING"))
    assert end_chain(folder, job()) == ""
    assert slurm.calls("sbatch") == []


def test_a_chain_that_gets_nothing_done_ends(typed: Typist, slurm: FakeSlurm) -> None:
    publish(typed.folder, ready=3, done=5)
    chain = "1"
    seen = []
    for _ in range(3):
        assert "is queued: job 4711" in queue_next(typed.folder, job(chain))
        chain = slurm.calls("sbatch")[-1][1]["PILOT_CHAIN"]
        seen.append(chain)
    assert seen == ["5:0", "5:1", "5:2"]
    assert "no task has ended in 3 allocations" in queue_next(typed.folder, job(chain))
    assert len(slurm.calls("sbatch")) == 3
    publish(typed.folder, ready=2, done=6)
    assert "is queued: job 4711" in queue_next(typed.folder, job(chain))
    assert slurm.calls("sbatch")[-1][1]["PILOT_CHAIN"] == "6:0"


def test_a_chain_does_not_go_on_beside_another_pilot(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    lease = take_lease(typed.folder, "run")
    lease.beat(1)
    try:
        assert "another pilot is alive in this folder" in queue_next(typed.folder, job())
        assert slurm.calls("sbatch") == []
        # the pilot of this very allocation may have taken the folder already
        assert queue_next(typed.folder, job(SLURM_JOB_ID="99")) == "the next allocation is queued: job 4711"
    finally:
        lease.release()


def test_nothing_that_slurm_does_stops_a_pilot(
    typed: Typist, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.says("squeue", "", "slurm_load_jobs error: Socket timed out\n", 1)
    # not knowing whether one waits, it queues one: of two that wait, the first to begin queues none
    assert "is queued: job 4711" in queue_next(typed.folder, job())
    slurm.says("sbatch", "", "sbatch: error: Invalid\nsbatch: account\n", 1)
    said = queue_next(typed.folder, job())
    assert said.startswith("the next allocation was not queued: SLURM did not take the job: sbatch: error: Invalid;")
    assert "`pilot submit --chain`" in said
    publish(typed.folder, done=4)
    assert "could not be taken out of the queue: SLURM does not say" in end_chain(typed.folder, job())
    slurm.says("squeue", line(typed.folder, "101", "PENDING"))
    slurm.says("scancel", "", "scancel: error: Kill job error on job id 101\n", 1)
    assert "could not be taken out of the queue: scancel did not do it" in end_chain(typed.folder, job())
    publish(typed.folder, ready=1)
    (typed.folder.root / "pilot.sh").unlink()
    assert "there is no pilot.sh" in queue_next(typed.folder, job())
    typed.folder.config.write_text("[run\n")
    assert "not valid TOML" in queue_next(typed.folder, job())
    empty = job(PATH=str(typed.folder.root))
    typed.folder.config.write_text("")
    typed("init", "--site", "generic", "--account", "x")
    assert "knows no SLURM" in queue_next(typed.folder, empty)
