"""How the cores of this machine lie, as the kernel tells it: caches, memory banks, hardware threads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """How some cores lie.

    Attributes:
        domains: levels, the finest first (as a rule: shared L3 caches, then NUMA domains), each the groups of
            cores of that level, ascending; a level of which the kernel says nothing is left out.
        siblings: the hardware threads of each physical core that has several.
    """

    domains: tuple[Groups, ...] = ()
    siblings: Groups = ()

    def one_thread_a_core(self, cores: Iterable[int]) -> tuple[int, ...]:
        """Of ``cores``, ascending, those of a physical core only once: by its first hardware thread among them."""
        core_of = {thread: group[0] for group in self.siblings for thread in group}
        first: dict[int, int] = {}
        for thread in sorted(cores):
            first.setdefault(core_of.get(thread, thread), thread)
        return tuple(sorted(first.values()))

    def restricted(self, cores: Iterable[int]) -> tuple[Groups, ...]:
        """The domains, of ``cores`` only; groups that have none of them are left out."""
        wanted = frozenset(cores)
        levels = [[tuple(core for core in group if core in wanted) for group in level] for level in self.domains]
        return tuple(tuple(group for group in level if group) for level in levels if any(level))


def read_topology(cores: Iterable[int], root: Path = Path("/sys")) -> Topology:
    """What the kernel says of ``cores``, and of nothing else; what it does not say is left out.

    Args:
        cores: those that we may use, as the kernel numbers them.
        root: where sysfs is mounted.
    """
    ours = frozenset(cores)
    cpus = root / "devices/system/cpu"
    caches = _groups((_last_cache(cpus / f"cpu{core}/cache") for core in sorted(ours)), ours)
    banks = _groups(sorted((root / "devices/system/node").glob("node[0-9]*/cpulist")), ours)
    # a cache may also be shared by several memory banks (sub-NUMA clusters): then the banks are finer
    levels = sorted((level for level in (caches, banks) if level), key=len, reverse=True)
    siblings = _groups((_threads(cpus / f"cpu{core}/topology") for core in sorted(ours)), ours)
    return Topology(tuple(levels), tuple(group for group in siblings if len(group) > 1))


def _groups(files: Iterable[Path | None], ours: frozenset[int]) -> Groups:
    """The different lists of cores in ``files``, as far as they are ours; each core in the first that has it."""
    groups: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for file in files:
        group = [core for core in _read_list(file) if core in ours and core not in seen]
        if group:
            groups.append(tuple(sorted(group)))
            seen.update(group)
    return tuple(sorted(groups))


def _last_cache(folder: Path) -> Path | None:
    """The list of cores that share the last level of cache."""
    levels = [(int(text), index) for index in folder.glob("index[0-9]*") if (text := _read(index / "level")).isdigit()]
    return max(levels)[1] / "shared_cpu_list" if levels else None


def _threads(folder: Path) -> Path:
    """The list of the hardware threads of a physical core, under its present name or its old one."""
    present = folder / "core_cpus_list"
    return present if present.exists() else folder / "thread_siblings_list"


def _read_list(file: Path | None) -> list[int]:
    text = "" if file is None else _read(file)
    try:
        return parse_list(text)
    except ValueError:
        return []


def parse_list(text: str) -> list[int]:
    """The numbers of a list as the kernel writes it: "0-3,8,10-11".

    Raises:
        ValueError: it is not such a list.
    """
    numbers: list[int] = []
    for part in text.split(","):
        if part.strip():
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
