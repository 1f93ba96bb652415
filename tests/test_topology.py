"""How the cores lie is read as the kernel tells it, and what it does not tell is nobody's error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pilot import host
from pilot.scheduler.cores import Layout
from pilot.topology import Topology, parse_list, read_topology


def say(cores: list[int]) -> str:
    """As the kernel writes a list."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) + "\n"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def a_machine(
    root: Path,
    count: int,
    *,
    cache: Callable[[int], int],
    bank: Callable[[int], int],
    physical: Callable[[int], int] = lambda core: core,
    last_level: int = 3,
) -> None:
    """A /sys of ``count`` cores; the functions name the group of a core."""

    def group(of: Callable[[int], int], core: int) -> str:
        return say([other for other in range(count) if of(other) == of(core)])

    for core in range(count):
        cpu = root / f"devices/system/cpu/cpu{core}"
        write(cpu / "topology/thread_siblings_list", group(physical, core))
        for level in range(1, last_level + 1):
            shared = group(cache, core) if level == last_level else group(physical, core)
            write(cpu / f"cache/index{level}/level", f"{level}\n")
            write(cpu / f"cache/index{level}/shared_cpu_list", shared)
    for number in {bank(core) for core in range(count)}:
        cores = say([core for core in range(count) if bank(core) == number])
        write(root / f"devices/system/node/node{number}/cpulist", cores)


def test_two_sockets_of_128_cores_with_caches_of_16(tmp_path: Path) -> None:
    a_machine(tmp_path, 256, cache=lambda core: core // 16, bank=lambda core: core // 128)
    found = read_topology(range(256), tmp_path)
    caches, banks = found.domains
    assert caches == tuple(tuple(range(first, first + 16)) for first in range(0, 256, 16))
    assert banks == (tuple(range(128)), tuple(range(128, 256)))
    assert found.one_thread_a_core(range(256)) == tuple(range(256))


def test_of_hardware_threads_the_first_of_each_core_is_taken(tmp_path: Path) -> None:
    # 2 sockets of 8 cores; the siblings are i and i + 16
    a_machine(tmp_path, 32, cache=lambda c: c % 16 // 8, bank=lambda c: c % 16 // 8, physical=lambda c: c % 16)
    found = read_topology(range(32), tmp_path)
    assert found.siblings == tuple((core, core + 16) for core in range(16))
    assert found.one_thread_a_core(range(32)) == tuple(range(16))
    # of a core of which we have the second thread only, that
    assert found.one_thread_a_core([0, 16, 17, 2]) == (0, 2, 17)
    ours = read_topology(found.one_thread_a_core(range(32)), tmp_path)
    assert ours == Topology(((tuple(range(8)), tuple(range(8, 16))),) * 2)
    assert found.restricted(range(16)) == ours.domains
    assert found.restricted(range(8)) == ((tuple(range(8)),),) * 2
    assert found.restricted([]) == ()


def test_siblings_that_are_neighbours_by_number(tmp_path: Path) -> None:
    a_machine(tmp_path, 8, cache=lambda c: 0, bank=lambda c: 0, physical=lambda c: c // 2)
    assert read_topology(range(8), tmp_path).one_thread_a_core(range(8)) == (0, 2, 4, 6)


def test_only_our_cores_are_spoken_of(tmp_path: Path) -> None:
    a_machine(tmp_path, 64, cache=lambda core: core // 8, bank=lambda core: core // 32)
    ours = [3, 4, 8, 9, 40]
    assert read_topology(ours, tmp_path).domains == (((3, 4), (8, 9), (40,)), ((3, 4, 8, 9), (40,)))


def test_memory_banks_finer_than_the_cache_come_first(tmp_path: Path) -> None:
    a_machine(tmp_path, 16, cache=lambda core: core // 8, bank=lambda core: core // 4)
    sizes = [len(level) for level in read_topology(range(16), tmp_path).domains]
    assert sizes == [4, 2]


def test_without_an_l3_the_last_cache_counts(tmp_path: Path) -> None:
    a_machine(tmp_path, 8, cache=lambda core: core // 4, bank=lambda core: 0, last_level=2)
    assert read_topology(range(8), tmp_path).domains[0] == ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize("broken", ["cache", "node", "topology", "all", "nonsense"])
def test_what_the_kernel_does_not_say_is_left_out(tmp_path: Path, broken: str) -> None:
    a_machine(tmp_path, 4, cache=lambda core: core // 2, bank=lambda core: 0, physical=lambda core: core // 2)
    for file in list(tmp_path.rglob("*_list")) + list(tmp_path.rglob("cpulist")):
        if broken == "nonsense":
            file.write_text("what?\n")
        elif broken == "all" or f"/{broken}" in str(file):
            file.unlink()
    found = read_topology(range(4), tmp_path)
    levels = {"cache": 1, "node": 1, "topology": 2, "all": 0, "nonsense": 0}
    assert len(found.domains) == levels[broken]
    assert len(found.siblings) == (2 if broken in {"cache", "node"} else 0)
    assert read_topology(range(4), tmp_path / "nowhere") == Topology()


def test_this_machine_can_be_read() -> None:
    cores = host.usable_cores()
    found = read_topology(cores)
    for level in found.domains:
        assert len({core for group in level for core in group}) == sum(len(group) for group in level)
        assert {core for group in level for core in group} <= set(cores)
    assert set(found.one_thread_a_core(cores)) <= set(cores)
    assert sorted(Layout(cores, found.domains).cores) == sorted(cores)


def test_lists_of_the_kernel() -> None:
    assert parse_list("0-3,8,10-11\n") == [0, 1, 2, 3, 8, 10, 11]
    assert parse_list("\n") == []
