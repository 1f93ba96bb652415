"""What `pilot doctor --allocation` makes of the answers of nodes; and probes that are really started, here."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot import host
from pilot.agent import monitor
from pilot.agent.messages import Hello
from pilot.cli.allocation_judge import fold, judge_disk, judge_launchers, judge_nodes, misplaced
from pilot.cli.allocation_nodes import Asked, NodeReport
from pilot.cli.allocation_print import Check, Grade, Section, print_sections
from pilot.cli.allocation_worlds import WorldReport, last_paragraph, tidy
from pilot.cli.checks_allocation import judge_worlds
from pilot.probes.disk import held_locks, try_link, try_locks
from pilot.probes.launch import Pair, Settings, halves, probe_launchers
from tests.command_line import Typist

HERE = {"cores": [0, 1, 2, 3], "memory_mb": 8000, "gpus": [], "domains": [], "pinned": True, "seen": 4, "boot": "b"}
NODES = ["n1", "n2", "n3"]


def pair(first: list[list[int]], second: list[list[int]], **other: Any) -> dict[str, Any]:
    """Two probes of two ranks that should sit on 0, 1 and on 2, 3."""
    wanted = ([[0], [1]], [[2], [3]])
    probes = [
        {"wanted": want, "found": found, "met": len(found), "trouble": ""}
        for want, found in zip(wanted, (first, second), strict=True)
    ]
    usual = {"launcher": "openmpi4", "ranks": 2, "threads": 1, "pinned": True, "probes": probes, "trouble": ""}
    return usual | other


GOOD = pair([[0], [1]], [[2], [3]])


def report(node: str = "n1", **other: Any) -> NodeReport:
    """A node with which nothing is wrong."""
    usual: dict[str, Any] = {
        "here": HERE,
        "locks": {"flock": "refused", "fcntl": "refused"},
        "seen_there_s": 0.1,
        "seen_here_s": 0.1,
        "link": "won" if node == "n1" else "lost",
        "ahead_s": 0.0,
        "found": {"openmpi4": "4.1.4"},
        "pairs": [GOOD],
        "done": True,
    }
    return NodeReport(node, **usual | other)


def grades(checks: list[Check]) -> dict[str, Grade]:
    return {check.what: check.grade for check in checks}


def test_ranks_on_cores_of_their_own_are_well_placed() -> None:
    assert misplaced(GOOD) == ""
    assert misplaced(pair([[1], [0]], [[3], [2]])) == ""


def test_an_overlap_of_two_probes_is_found() -> None:
    assert misplaced(pair([[0], [1]], [[0], [1]])) == "both probes sat on cores 0-1"
    assert misplaced(pair([[0], [1]], [[1], [3]])) == "both probes sat on core 1"


def test_two_ranks_of_one_probe_on_the_same_core_are_found() -> None:
    assert misplaced(pair([[0], [0]], [[2], [3]])) == "a rank sat on core 0 instead of core 1"


def test_ranks_that_are_missing_or_did_not_meet_are_found() -> None:
    assert misplaced(pair([[0]], [[2], [3]])) == "1 of 2 ranks were seen"
    late = pair([[0], [1]], [[2], [3]])
    late["probes"][1]["met"] = 0
    assert misplaced(late) == "they did not run at the same time"


def test_without_pinning_only_numbers_are_compared() -> None:
    loose = pair([[0, 1], [0, 1]], [[0, 1], [0, 1]], pinned=False)
    assert misplaced(loose) == ""
    (check,) = judge_launchers(Asked((report(pairs=[loose]),)), {"openmpi4"})
    assert check.grade is Grade.WARN


def test_an_overlap_fails_if_the_launcher_is_needed_and_names_the_node_where_nodes_differ() -> None:
    bad = pair([[0], [1]], [[0], [1]])
    asked = Asked((report("n1"), report("n2", pairs=[bad]), report("n3")))
    good, wrong = judge_launchers(asked, {"openmpi4"})
    assert good.found.startswith("n[1,3]: 2 × 2 ranks")
    assert good.grade is Grade.PASS
    assert wrong.found.startswith("n2: ")
    assert "cores 0-1" in wrong.found
    assert wrong.grade is Grade.FAIL
    assert wrong.cure
    assert {check.grade for check in judge_launchers(asked, set())} == {Grade.PASS, Grade.WARN}


def test_nodes_that_are_alike_are_one_line() -> None:
    checks = judge_nodes(Asked(tuple(report(node) for node in NODES)))
    assert [check.what for check in checks] == ["n[1-3]", "clocks"]
    assert all(check.grade is Grade.PASS for check in checks)


def test_a_node_that_does_not_answer_is_named_with_what_srun_said_of_it() -> None:
    words = ("srun: error: n1: task 0: Killed", "srun: error: Node failure on n3")
    silent = Asked((report("n1"), report("n2"), NodeReport("n3")), last_words=words)
    checks = {check.what: check for check in judge_nodes(silent)}
    assert checks["n[1-2]"].grade is Grade.PASS
    assert checks["n3"].grade is Grade.FAIL
    assert checks["n3"].found == "no answer within 60 s (srun: error: Node failure on n3)"
    assert "scontrol show node n3" in checks["n3"].cure


def test_a_node_that_does_not_see_the_folder_and_one_that_is_not_confined_are_named() -> None:
    loose = HERE | {"pinned": False, "seen": 64}
    blind = NodeReport("n2", blind=True, trouble="No such file or directory")
    checks = {check.what: check for check in judge_nodes(Asked((report("n1", here=loose), blind)))}
    assert checks["n2"].grade is Grade.FAIL
    assert "share" in checks["n2"].cure
    assert checks["cores"].grade is Grade.WARN
    assert checks["cores"].found.startswith("n1: SLURM grants 4 and the kernel lets us use 64")


def test_a_clock_that_is_wrong_is_named() -> None:
    checks = {check.what: check for check in judge_nodes(Asked((report("n1"), report("n2", ahead_s=-30.0))))}
    assert checks["clocks"].grade is Grade.WARN
    assert "n2 is 30.0 s behind" in checks["clocks"].found


def test_a_shared_disk_that_does_all_passes() -> None:
    checks = judge_disk(Asked(tuple(report(node) for node in NODES)), boot="other")
    assert grades(checks) == dict.fromkeys(("renames", "links", "locks"), Grade.PASS)
    assert "refused on n[1-3]" in checks[-1].found


def test_on_one_machine_nothing_is_claimed_of_locks_between_nodes() -> None:
    checks = judge_disk(Asked((report("n1"), report("n2"))), boot="b")
    assert "cannot be told" in checks[-1].found


def test_locks_that_are_granted_twice_warn_and_two_winners_of_a_link_fail() -> None:
    granted = {"flock": "granted", "fcntl": "refused"}
    checks = judge_disk(Asked((report("n1"), report("n2", locks=granted, link="won"))), boot="other")
    assert grades(checks) == {"renames": Grade.PASS, "links": Grade.FAIL, "locks": Grade.PASS}
    (flock,) = [check for check in checks if check.found.startswith("flock")]
    assert flock.grade is Grade.WARN
    assert "on n2: a second one was granted" in flock.found


def test_a_disk_that_is_late_or_not_shared_is_told() -> None:
    late = judge_disk(Asked((report("n1"), report("n2", seen_there_s=20.0))), boot="other")
    assert late[0].grade is Grade.WARN
    never = judge_disk(Asked((report("n1"), report("n2", seen_there_s=None))), boot="other")
    assert never[0].grade is Grade.FAIL
    assert never[0].found.startswith("n2: ")


def test_only_the_way_that_is_used_must_work_and_another_that_works_is_the_cure() -> None:
    reports = [
        WorldReport("srun", "MPICH 5.0.2", trouble="no PMI2 here"),
        WorldReport("mpiexec", "MPICH 5.0.2", ("n1", "n2", "n3"), 0.001),
        WorldReport("mpirun", trouble="not tried: none on the PATH"),
    ]
    checks = list(judge_worlds(reports, NODES, "srun"))
    assert grades(checks) == {"srun": Grade.FAIL, "mpiexec": Grade.PASS, "mpirun": Grade.WARN}
    assert checks[0].cure == 'run.world = "mpiexec" in pilot.toml works here'
    assert Grade.FAIL not in grades(list(judge_worlds(reports, NODES, "mpiexec"))).values()


def test_a_world_of_the_wrong_size_or_on_the_wrong_nodes_is_none() -> None:
    for nodes in (("n1",), ("n1", "n1", "n1"), ("n1", "n2", "n4")):
        (check,) = judge_worlds([WorldReport("srun", "MPICH 5.0.2", nodes)], NODES, "srun")
        assert check.grade is Grade.FAIL


def test_the_library_of_another_mpi_is_named_as_the_cause() -> None:
    (check,) = judge_worlds([WorldReport("srun", "Open MPI v4.1.4", trouble="task 1: Exited")], NODES, "srun")
    assert "mpi4py uses Open MPI v4.1.4" in check.found
    assert "unset MPI4PY_LIBMPI" in check.cure


def test_names_are_folded_as_slurm_writes_them() -> None:
    assert fold(["n1", "n2", "n3", "n7", "m05", "login"]) == "n[1-3,7],m05,login"
    assert fold(["r01c09", "r01c10"]) == "r01c[09-10]"


def test_words_of_launchers_become_one_short_line() -> None:
    rule = "-" * 40
    assert last_paragraph(["something", rule, "There are not", "enough slots.", rule]) == "There are not enough slots."
    assert last_paragraph([]) == "it ended without a word"
    assert tidy("MPICH Version:      5.0.2") == "MPICH 5.0.2"
    assert tidy("Open MPI v4.1.4, package: Debian") == "Open MPI v4.1.4"


def test_a_failure_among_the_lines_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Check("a", "fine"), Check("b", "broken", Grade.FAIL, "mend it")
    assert print_sections([Section(waiting="..."), Section("one", [good])])
    assert not print_sections([Section("one", [good, bad]), Section("none", [])])
    said = capsys.readouterr().out
    assert "cure: mend it" in said
    assert said.endswith("1 pass, 1 fail\n")


def test_outside_of_an_allocation_it_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOBID"):
        monkeypatch.delenv(name, raising=False)
    said = Typist(tmp_path, capsys, monkeypatch).fails("doctor", "--allocation", code=3)
    assert "no allocation" in said
    assert "next:" in said
    assert list(tmp_path.iterdir()) == []


def test_two_probes_have_half_of_the_node_each() -> None:
    def of(cores: int, name: str = "openmpi4") -> tuple[int, int, list[tuple[int, ...]]]:
        return halves(name, Hello("n1", tuple(range(cores)), 0))

    assert of(4) == (2, 1, [(0, 1), (2, 3)])
    assert of(5) == (2, 1, [(0, 1), (2, 3)])
    assert of(2, "none") == (1, 1, [(0,), (1,)])
    assert of(1) == (1, 1, [(0,)])
    ranks, threads, (first, second) = of(72)
    assert (ranks, threads) == (8, 4)
    assert set(first).isdisjoint(second)
    assert len(first) == len(second) == 32


def probe_here(tmp_path: Path, script: str) -> dict[str, Pair]:
    """Probes with an `mpirun` that is this script, on all our cores."""
    program = tmp_path / "bin" / "mpirun"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environ = os.environ | {"PATH": f"{program.parent}:/usr/bin:/bin"}
    hello = Hello("n1", host.usable_cores(), 1000)
    settings = Settings(environ, {}, (), f"test-{tmp_path.name}", skip=("srun",))
    with probe_launchers(settings, hello) as (found, pairs):
        assert found["openmpi4"] == "4.9.9"
        seen = {pair.launcher: pair for pair in pairs}
    ours = [pid for pid in monitor.listed() if monitor.environment(pid).get(monitor.CAMPAIGN) == settings.mark]
    assert ours == []
    return seen


#: counts the applications of one world and starts each with the words behind "taskset -c CORES"
MPIRUN = """#!{python}
import subprocess, sys
if "--version" in sys.argv:
    print("mpirun (Open MPI) 4.9.9")
    sys.exit()
words = sys.argv[sys.argv.index("-np"):]
starts = [i for i, word in enumerate(words) if word == "-np"]
ends = [*(i - 1 for i in starts[1:]), len(words)]
worlds = [words[start + 2 : end] for start, end in zip(starts, ends)]
ranks = [subprocess.Popen({command}) for world in worlds]
sys.exit(max(rank.wait() for rank in ranks))
"""


@pytest.mark.skipif(len(host.usable_cores()) < 2, reason="two probes need two cores")
@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("world", ""),
        ("[*world[:2], '{first}', *world[3:]]", "both probes sat on"),
    ],
)
def test_a_launcher_that_puts_all_ranks_on_the_same_cores_is_found_out(
    tmp_path: Path, command: str, wrong: str
) -> None:
    first = str(host.usable_cores()[0])
    script = MPIRUN.format(python=sys.executable, command=command.format(first=first))
    pairs = probe_here(tmp_path, script)
    found = pairs["openmpi4"]
    assert [probe.trouble for probe in found.probes] == ["", ""]
    told = json.loads(json.dumps({name: getattr(found, name) for name in found.__slots__}, default=_plain))
    assert misplaced(told).startswith(wrong)
    assert (misplaced(told) == "") is (wrong == "")
    assert [probe.trouble for probe in pairs["none"].probes] == ["", ""]


def test_a_launcher_that_fails_is_quoted(tmp_path: Path) -> None:
    script = (
        '#!/bin/sh\n[ "$1" = --version ] && echo "mpirun (Open MPI) 4.9.9" && exit\necho "no licence" >&2\nexit 4\n'
    )
    probes = probe_here(tmp_path, script)["openmpi4"].probes
    assert {probe.trouble for probe in probes} == {"exit code 4: no licence"}


def _plain(probe: Any) -> dict[str, Any]:
    return {name: getattr(probe, name) for name in probe.__slots__}


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    argv = [sys.executable, "-P", "-m", "pilot.probes.probe", "nodes", str(tmp_path / "away")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ev"] == "blind"


def test_a_lock_held_by_one_process_is_refused_to_another_and_granted_afterwards(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", f"from pathlib import Path; {ASK}; print(try_locks(Path({str(tmp_path)!r})))"]
    with held_locks(tmp_path) as troubles:
        assert troubles == {}
        held = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert held.count("refused") == 2
    assert try_locks(tmp_path) == {"flock": "granted", "fcntl": "granted"}


ASK = "from pilot.probes.disk import try_locks"


def test_one_name_is_won_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in NODES]
    for file in files:
        file.touch()
    assert [try_link(file) for file in files] == ["won", "lost", "lost"]
