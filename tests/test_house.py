"""The house stands: imports go down only, in no circle, and what decides touches no edge."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = {
    path.relative_to(ROOT).as_posix(): path for top in ("db", "tasks", "pilot") for path in (ROOT / top).rglob("*.py")
}

#: from the ground up; docs/design.md draws it
FLOORS = [
    (1, r"db/"),
    (2, r"tasks/"),
    (2, r"pilot/(__init__|backups|config|contents|contradictions|drain|durations|folder|host)\.py"),
    (2, r"pilot/(lease|left_overs|mailbox|snapshot|tables|(label|run|stage|train)_tables|topology)\.py"),
    (3, r"pilot/(scheduler|slurm|mpi|campaign|examples)/"),
    (4, r"pilot/agent/"),
    (5, r"pilot/(packing|probes|ranks|repair)/"),
    (5, r"pilot/(end_watch|ending|ledger|manager|memory|node_watch|opening|orders|orphans|publisher)\.py"),
    (5, r"pilot/(quarantine|reckoning|requests|session|supervisor|terms|turn)\.py"),
    (6, r"pilot/(cli|report)/"),
    (7, r"pilot/__main__\.py"),
]
PURE = re.compile(
    r"db/(states|records|errors)\.py|pilot/scheduler/|pilot/(drain|durations|packing/choice)\.py"
    r"|pilot/campaign/(checks|criteria|elastic_cells|explorations|fits|planner|protocol)\.py"
    r"|pilot/slurm/(commands|parse|hostlist|refusals)\.py|pilot/agent/silence\.py|pilot/mpi/own_ranks\.py"
)
EDGE = {"subprocess", "sqlite3", "mpi4py", "socket", "shutil", "tempfile", "time", "datetime", "os", "threading"}


def floor(name: str) -> int:
    return next(number for number, pattern in FLOORS if re.match(pattern, name))


def imports(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(modules: set[str]) -> set[str]:
    paths = {module.replace(".", "/") for module in modules}
    return {f"{path}.py" for path in paths} & FILES.keys() | {f"{path}/__init__.py" for path in paths} & FILES.keys()


def test_every_file_has_its_floor() -> None:
    for name in FILES:
        floor(name)


def test_imports_go_down_only() -> None:
    up = [f"{name} -> {other}" for name in FILES for other in ours(imports(name)) if floor(other) > floor(name)]
    assert up == []


def test_imports_form_no_circle() -> None:
    needs = {name: ours(imports(name)) - {name} for name in FILES}
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        for name in free:
            del needs[name]
    assert needs == {}


def test_what_decides_touches_no_clock_no_file_no_process_and_no_database() -> None:
    for name in FILES:
        if PURE.match(name):
            touched = {module.split(".")[0] for module in imports(name)} & EDGE
            assert not touched, f"{name} imports {touched}"


def test_there_is_one_clock() -> None:
    for name in FILES:
        if name != "pilot/host.py":
            assert "time" not in imports(name), name


def test_mpi_is_met_in_one_place() -> None:
    users = {name for name in FILES if any(module.split(".")[0] == "mpi4py" for module in imports(name))}
    assert users == {"pilot/agent/peers.py"}


def test_an_agent_in_a_rank_of_its_own_loads_no_database_and_no_campaign() -> None:
    heavy = "('sqlalchemy', 'pydantic', 'ase', 'numpy')"
    code = f"import sys, pilot.ranks.rank; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_no_shell_is_started() -> None:
    for name, path in FILES.items():
        assert "shell=True" not in path.read_text(), name
