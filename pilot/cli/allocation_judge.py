"""What the answers of the nodes mean. Pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pilot.cli.allocation_nodes import Asked, NodeReport
from pilot.cli.allocation_print import Check, Grade
from pilot.cli.output import plural

PASS, WARN, FAIL = Grade.PASS, Grade.WARN, Grade.FAIL
#: clocks that differ by more make the times in logs and leases misleading
SKEW_S = 2.0
#: a rename that is seen later makes requests and the view late
LATE_S = 5.0

_SHARE = "put the folder on a disk that all nodes share (/scratch, /work), not on /tmp"
_CONFINE = (
    "ask for whole nodes (`--exclusive`); the site could confine jobs to their cores "
    "(TaskPlugin=task/cgroup, ConstrainCores=yes)"
)
_COUNTED = "tell the site: its SLURM counts cores that this job cannot use (CPUs= in slurm.conf)"


def fold(names: Sequence[str]) -> str:
    """Names as SLURM writes them: n[1-3,7], m05."""
    groups: dict[tuple[str, int], list[int]] = {}
    plain: list[str] = []
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)", name)
        if match is None:
            plain.append(name)
        else:
            groups.setdefault((match[1], len(match[2])), []).append(int(match[2]))
    folded = []
    for (stem, width), numbers in groups.items():
        runs = _runs(sorted(numbers))
        said = [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in runs]
        folded.append(f"{stem}{said[0]}" if len(numbers) == 1 else f"{stem}[{','.join(said)}]")
    return ",".join([*folded, *plain])


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def grouped(found: Iterable[tuple[str, Check]]) -> list[Check]:
    """What is the same on several nodes is said once; "{nodes}" in a check stands for their names."""
    groups: dict[Check, list[str]] = {}
    for node, check in found:
        groups.setdefault(check, []).append(node)
    return [
        Check(
            check.what.replace("{nodes}", fold(nodes)),
            check.found.replace("{nodes}", fold(nodes)),
            check.grade,
            check.cure.replace("{nodes}", fold(nodes)),
        )
        for check, nodes in groups.items()
    ]


def judge_nodes(asked: Asked) -> list[Check]:
    """Which nodes are there, with what."""
    checks = grouped((report.node, _node(report, asked)) for report in asked.reports)
    return [*checks, *grouped(_pinning(asked.reports)), *_clocks(asked.reports)]


def _node(report: NodeReport, asked: Asked) -> Check:
    if report.blind:
        return Check("{nodes}", f"does not see this folder: {report.trouble}", FAIL, _SHARE)
    if report.trouble:
        return Check("{nodes}", report.trouble, FAIL, report.cure or _cure_of(report.trouble))
    if report.here is None or not report.done:
        how = "no answer" if report.here is None else "its last word was missing"
        how += "; the probe has ended" if asked.ended else f" within {asked.silence_s:.0f} s"
        cure = "`scontrol show node {nodes}` says what SLURM thinks of it; `--exclude={nodes}` asks for others"
        return Check("{nodes}", how + _last_words(report, asked), FAIL, cure)
    here = report.here
    parts = [f"{plural(len(here['cores']), 'core')}{_shape(here['domains'])}", f"{here['memory_mb'] / 1000:.1f} GB"]
    if here["gpus"]:
        parts.append(f"GPU {','.join(str(gpu) for gpu in here['gpus'])}")
    return Check("{nodes}", "; ".join(parts))


def _cure_of(trouble: str) -> str:
    return "add the folder of SLURM's programs to PATH, in pilot.sh" if trouble.startswith("srun: No such file") else ""


def _last_words(report: NodeReport, asked: Asked) -> str:
    """What srun has said of this node; of all, where none has answered."""
    nobody = all(other.here is None for other in asked.reports)
    said = [line for line in asked.last_words if nobody or re.search(rf"\b{re.escape(report.node)}\b", line)]
    return f" ({said[-1]})" if said else ""


def _shape(domains: Sequence[Sequence[Sequence[int]]]) -> str:
    """How the cores lie: " (2 × 36)"; nothing where they all lie together."""
    levels = []
    for level in domains:
        sizes = Counter(len(group) for group in level)
        if len(level) > 1:
            levels.append(" + ".join(f"{count} × {size}" for size, count in sorted(sizes.items())))
    return f" in groups of {', '.join(levels)}" if levels else ""


def _pinning(reports: Iterable[NodeReport]) -> Iterable[tuple[str, Check]]:
    for report in reports:
        if report.here is not None and not report.here["pinned"]:
            granted, seen = len(report.here["cores"]), report.here["seen"]
            found = f"{{nodes}}: SLURM grants {granted} and the kernel lets us use {seen}: tasks are not pinned"
            yield report.node, Check("cores", found, WARN, _CONFINE if seen > granted else _COUNTED)


def _clocks(reports: Iterable[NodeReport]) -> Iterable[Check]:
    ahead = {report.node: report.ahead_s for report in reports if report.ahead_s is not None}
    if len(ahead) < 2:
        return
    least, most = min(ahead.values()), max(ahead.values())
    off = max(abs(least), abs(most), most - least)
    if off <= SKEW_S:
        yield Check("clocks", f"within {max(0.1, off):.1f} s of each other")
        return
    worst = max(ahead, key=lambda node: abs(ahead[node]))
    cure = "tell the site: its clocks are not synchronised; times in the log will mislead"
    yield Check("clocks", f"{worst} is {abs(ahead[worst]):.1f} s {_way(ahead[worst])}", WARN, cure)


def _way(ahead_s: float) -> str:
    return "ahead" if ahead_s > 0 else "behind"


def judge_disk(asked: Asked, boot: str) -> list[Check]:
    """What the nodes see of each other on the disk.

    Args:
        asked: the answers.
        boot: of the machine that asks: a node with the same is the same machine.
    """
    there = [report for report in asked.reports if report.link]
    if not there:
        return []
    others = [report for report in there if report.here is not None and report.here["boot"] != boot]
    return [_renames(there), _links(there), *_locks(there, others, asked)]


def _renames(there: Sequence[NodeReport]) -> Check:
    blind = [report.node for report in there if report.seen_there_s is None or report.seen_here_s is None]
    if blind:
        return Check("renames", f"{fold(blind)}: a renamed file was not seen from the other side", FAIL, _SHARE)
    out = max(report.seen_there_s or 0.0 for report in there)
    back = max(report.seen_here_s or 0.0 for report in there)
    found = f"seen on all nodes after {out:.2f} s, theirs here after {back:.2f} s"
    if max(out, back) > LATE_S:
        cure = "requests and `pilot status` will be late by so much; a parallel file system is quicker than NFS"
        return Check("renames", found, WARN, cure)
    return Check("renames", found)


def _links(there: Sequence[NodeReport]) -> Check:
    troubles = [report for report in there if report.link not in {"won", "lost"}]
    won = [report.node for report in there if report.link == "won"]
    cure = "the lease cannot be kept here: use another file system for the campaign"
    if troubles:
        return Check("links", f"{fold([r.node for r in troubles])}: {troubles[0].link or 'no answer'}", FAIL, cure)
    if len(won) != 1:
        return Check("links", f"one name was given to {len(won)} files: {fold(won) or 'none'}", FAIL, cure)
    return Check("links", f"of {len(there)} at once, one won, as it should" if len(there) > 1 else "work")


def _locks(there: Sequence[NodeReport], others: Sequence[NodeReport], asked: Asked) -> list[Check]:
    """What is the same of both kinds of locks is said once."""
    said = {name: _lock(name, there, others, asked) for name in ("flock", "fcntl")}
    if len(set(said.values())) == 1:
        return [replace(said["flock"], found=f"flock and fcntl {said['flock'].found}")]
    return [replace(check, found=f"{name} {check.found}") for name, check in said.items()]


def _lock(name: str, there: Sequence[NodeReport], others: Sequence[NodeReport], asked: Asked) -> Check:
    """Locks that do not work cost nothing but a warning: the pilot relies on links."""
    cure = "none is needed for the pilot, which relies on links; beware of other programs' databases on this disk"
    if name in asked.lock_troubles:
        return Check("locks", f"do not work: {asked.lock_troubles[name]}", WARN, cure)
    wrong = [report for report in there if report.locks.get(name) != "refused"]
    if wrong:
        said = Counter(report.locks.get(name, "no answer") for report in wrong).most_common(1)[0][0]
        how = "a second one was granted" if said == "granted" else said
        return Check("locks", f"do not work on {fold([report.node for report in wrong])}: {how}", WARN, cure)
    if not others:
        where = "all nodes are" if len(there) > 1 else "there is but"
        return Check("locks", f"work here; between nodes cannot be told, as {where} one machine")
    return Check("locks", f"work: refused on {fold([report.node for report in others])} while held here")


def judge_launchers(asked: Asked, needed: Collection[str]) -> list[Check]:
    """Whether two probes at once keep to their cores, for each launcher.

    Args:
        asked: the answers.
        needed: the launchers without which tasks would fail: what is wrong with others is only a warning.
    """
    found = [
        (report.node, _launcher(pair, report.found.get(pair["launcher"], ""), pair["launcher"] in needed))
        for report in asked.reports
        for pair in report.pairs
    ]
    order = list(dict.fromkeys(check.what for _, check in found))
    checks = grouped(found)
    several = Counter(check.what for check in checks)
    return [
        # where nodes differ it is said which
        check if several[check.what] == 1 else _named(check, found)
        for check in sorted(checks, key=lambda check: order.index(check.what))
    ]


def _named(check: Check, found: Iterable[tuple[str, Check]]) -> Check:
    nodes = [node for node, other in found if other == check]
    return Check(check.what, f"{fold(nodes)}: {check.found}", check.grade, check.cure)


def _launcher(pair: Mapping[str, Any], version: str, needed: bool) -> Check:
    name = pair["launcher"]
    bad = FAIL if needed else WARN
    title = name if name == "none" else f"{name} {version}"
    size = f"{len(pair['probes'])} × {plural(pair['ranks'], 'rank')}"
    size += f" of {plural(pair['threads'], 'core')}" if pair["pinned"] else ""
    trouble = pair["trouble"] or next((probe["trouble"] for probe in pair["probes"] if probe["trouble"]), "")
    wrong = trouble or misplaced(pair)
    if wrong:
        return Check(title, f"{size}: {wrong}", bad, _cure(name, needed=needed))
    if not pair["pinned"]:
        return Check(title, f"{size} side by side; their cores cannot be compared, as above", WARN)
    return Check(title, f"{size} side by side, each on its own cores")


def misplaced(pair: Mapping[str, Any]) -> str:
    """What is wrong with where the ranks of a pair of probes sat; "" if nothing is."""
    for probe in pair["probes"]:
        if len(probe["found"]) != pair["ranks"]:
            return f"{len(probe['found'])} of {plural(pair['ranks'], 'rank')} were seen"
        if probe["met"] != pair["ranks"]:
            return "they did not run at the same time"
    if not pair["pinned"]:
        return ""
    held = [{core for rank in probe["found"] for core in rank} for probe in pair["probes"]]
    both = set.intersection(*held) if len(held) > 1 else set()
    if both:
        return f"both probes sat on {_cores(both)}"
    for probe in pair["probes"]:
        wanted = Counter(tuple(rank) for rank in probe["wanted"])
        found = Counter(tuple(rank) for rank in probe["found"])
        if wanted != found:
            strange, due = next(iter(found - wanted)), next(iter(wanted - found))
            return f"a rank sat on {_cores(strange)} instead of {_cores(due)}"
    return ""


def _cores(cores: Iterable[int]) -> str:
    said = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in _runs(sorted(cores)))
    return f"core {said}" if said.isdigit() else f"cores {said}"


def _cure(name: str, *, needed: bool) -> str:
    if needed:
        return "name another launcher in pilot.toml (run.mpi), or load another MPI module; docs/mpi.md"
    return f"none is needed as long as nothing in pilot.toml names {name}"
