"""What an MPI leaves in shared memory is taken away, and nothing else."""

import mmap
import os
import time
from pathlib import Path

from pilot.agent.shared_memory import remove_stale


def test_only_old_files_that_nobody_maps_are_removed(tmp_path: Path) -> None:
    mapped, stale, young, other = (
        tmp_path / name for name in ("mpich_shm_a_0", "mpich_shm_b_0", "mpich_shm_c_0", "vader_1")
    )
    for path in (mapped, stale, young, other):
        path.write_bytes(bytes(4096))
    for path in (mapped, stale, other):
        os.utime(path, (time.time() - 100, time.time() - 100))
    with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert remove_stale(tmp_path) == 1
    assert [path.exists() for path in (mapped, stale, young, other)] == [True, False, True, True]


def test_what_a_killed_open_mpi_has_left_is_removed(tmp_path: Path) -> None:
    names = ("vader_segment.n1.0.6cf80001.0", "sm_segment.n1.0.6cf80001.1", "vader_segment_of_nobody", "psm2_shm.1")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - 100, time.time() - 100))
    assert remove_stale(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["psm2_shm.1", "vader_segment_of_nobody"]
