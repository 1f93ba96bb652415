"""The machine under us, compared with what other sources say of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from db.errors import MissingError
from pilot import host


def test_run_gives_output_and_code():
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=20)
    assert done == host.Ran(3, "out\n", "err\n")


def test_run_reads_nothing_and_has_the_environment_that_it_is_given():
    env = {"ONLY": "me", "PATH": "/bin:/usr/bin"}
    assert host.run(["sh", "-c", "cat; echo $ONLY"], timeout_s=20, env=env).stdout == "me\n"


def test_run_gives_up_after_the_time():
    assert host.run([sys.executable, "-c", "import signal; signal.pause()"], timeout_s=0.5).code is None


def test_run_says_what_is_missing():
    with pytest.raises(MissingError, match="no-such-program"):
        host.run(["no-such-program", "-v"], timeout_s=20)


def test_a_process_is_read_whatever_its_name(tmp_path):
    odd = tmp_path / "a) b (c"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "1000"], start_new_session=True) as child:
        seen = host.process(child.pid)
        assert (seen.pid, seen.ppid, seen.session, seen.zombie) == (child.pid, os.getpid(), child.pid, False)
        assert host.process_start(child.pid) == seen.start >= host.process_start(os.getpid())
        child.kill()
    assert host.process(child.pid) is None
    assert host.process_start(child.pid) is None


def test_resident_memory_is_in_mb():
    code = "x = b'x' * 100_000_000; from pilot import host; import os; print(host.process(os.getpid()).rss_mb)"
    assert 100 < float(host.run([sys.executable, "-c", code], timeout_s=60).stdout) < 160


def test_cores_memory_and_names():
    assert set(host.usable_cores()) == os.sched_getaffinity(0)
    assert 0 < host.memory_mb() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6 + 1
    assert "." not in host.hostname()
    assert host.boot_id() == host.boot_id() != ""
    assert host.monotonic() <= host.monotonic()
    assert host.now() > 1.7e9


def test_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 2")
    assert host.gpus() == (0, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert host.gpus() == ()


def test_the_tightest_cgroup_counts_in_version_2(tmp_path):
    inner = tmp_path / "slurm" / "job_1"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "slurm" / "memory.max").write_text("7000000000\n")
    assert host.cgroup_limits("0::/slurm/job_1\n", tmp_path) == [7_000_000_000]


def test_and_in_version_1(tmp_path):
    inner = tmp_path / "memory" / "slurm"
    inner.mkdir(parents=True)
    (inner / "memory.limit_in_bytes").write_text("5000000000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    membership = "5:cpuset:/slurm\n4:memory:/slurm\n0::/\n"
    assert host.cgroup_limits(membership, tmp_path) == [5_000_000_000, 9223372036854771712]


def test_free_space_and_file_system(tmp_path):
    space = host.free_space(tmp_path)
    assert space.mb > 0
    assert space.files is None or space.files > 0
    said = host.run(["stat", "-f", "-c", "%T", "/proc"], timeout_s=20).stdout.strip()
    assert host.file_system(Path("/proc")) == said == "proc"
    assert host.file_system(tmp_path) != ""
