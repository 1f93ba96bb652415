"""The lease: one holder, taken over only from the dead."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from folders import make_folder

from db.errors import HeldError, LostLeaseError, StorageError
from pilot import host
from pilot.lease import living_holder, read_holder, release_by_force, take_lease


def test_a_second_holder_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "run")
    with pytest.raises(HeldError, match="alive") as error:
        take_lease(folder, "run")
    assert f"pid {lease.holder.pid} on {host.hostname()}" in error.value.where
    lease.release()
    take_lease(folder, "run").release()


def test_a_lease_is_taken_over_from_a_process_that_was_killed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    script = (
        "import sys, os, signal; from pathlib import Path\n"
        "from pilot.folder import Folder; from pilot.lease import take_lease\n"
        "take_lease(Folder(Path(sys.argv[1])), 'run'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-P", "-c", script, str(tmp_path)], check=False)
    dead = read_holder(folder)
    assert dead is not None
    assert living_holder(folder) is None
    lease = take_lease(folder, "run")
    assert lease.holder.nonce != dead.nonce


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "run")
    older = replace(lease.holder, process_start=lease.holder.process_start - 1)
    folder.lease.write_text(json.dumps(asdict(older)))
    take_lease(folder, "run")


def test_a_holder_on_another_machine_is_never_taken_for_dead(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "run")
    away = replace(lease.holder, host="elsewhere", heartbeat=host.now() - 3600)
    folder.lease.write_text(json.dumps(asdict(away)))
    with pytest.raises(HeldError, match="silent for 60 min") as error:
        take_lease(folder, "run")
    assert "--release-lease" in error.value.next_step
    assert release_by_force(folder) is not None
    take_lease(folder, "run")


def test_who_lost_the_lease_is_told_at_the_next_beat(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    lease = take_lease(folder, "run")
    lease.beat(1)
    folder.lease.unlink()
    take_lease(folder, "run")
    with pytest.raises(LostLeaseError):
        lease.beat(1)
    lease.release()
    assert folder.lease.exists()


def test_a_living_holder_is_not_forced_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    take_lease(folder, "run")
    with pytest.raises(HeldError):
        release_by_force(folder)


def test_a_lease_that_cannot_be_read_is_not_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.lease.write_text('{"nonce": ')
    with pytest.raises(StorageError, match="not readable"):
        take_lease(folder, "run")
    release_by_force(folder)
    take_lease(folder, "run")
