"""What MPICH leaves in shared memory is taken away, and nothing else."""

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
