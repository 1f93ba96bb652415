"""Who is who among the processes of a pilot, as seen from outside: by command line and environment in /proc."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Seen:
    """A living process."""

    pid: int
    parent: int
    session: int
    start: int
    argv: tuple[str, ...]
    environ: dict[str, str]

    @property
    def program(self) -> str:
        return Path(self.argv[0]).name if self.argv else ""

    @property
    def node(self) -> str:
        """The node of the test cluster on which it is."""
        return self.environ.get("PILOT_NODE") or self.environ.get("SLURMD_NODENAME", "")

    @property
    def attempt(self) -> str:
        return self.environ.get("PILOT_ATTEMPT", "")

    def send(self, number: signal.Signals) -> bool:
        """False when it is gone already."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if _stat(self.pid)[2] != self.start:
                return False
            signal.pidfd_send_signal(handle, number)
        except (OSError, IndexError, ValueError):
            return False
        finally:
            os.close(handle)
        return True


def _stat(pid: int) -> tuple[int, int, int, bytes]:
    """Parent, session, start and state."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    fields = stat[stat.rfind(b")") + 2 :].split()
    return int(fields[1]), int(fields[3]), int(fields[19]), fields[0]


def living() -> Iterator[Seen]:
    """All processes but zombies, this one and those whose environment may not be read."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            pid = int(entry.name)
            parent, session, start, state = _stat(pid)
            if state in {b"Z", b"X"}:
                continue
            argv = tuple((entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            content = (entry / "environ").read_bytes().decode(errors="replace")
            environ = dict(item.split("=", 1) for item in content.split("\0") if "=" in item)
            yield Seen(pid, parent, session, start, argv, environ)


@dataclass(frozen=True, slots=True)
class Census:
    """The processes of one campaign folder, by what they are."""

    supervisors: tuple[Seen, ...]
    managers: tuple[Seen, ...]
    agents: tuple[Seen, ...]
    launchers: tuple[Seen, ...]
    steps: tuple[Seen, ...]
    tasks: tuple[Seen, ...]

    def first_of_tasks(self) -> list[Seen]:
        """The first process of each attempt."""
        return [seen for seen in self.tasks if seen.pid == seen.session]

    def running(self, *programs: str) -> list[Seen]:
        """The tasks' processes that are such a program."""
        return [seen for seen in self.tasks if seen.program in programs]

    def everyone(self) -> list[Seen]:
        return [*self.supervisors, *self.managers, *self.agents, *self.launchers, *self.steps, *self.tasks]


def census(folder: Path) -> Census:
    """Look at all processes. A manager that lives in the supervisor is counted as the supervisor only."""
    found: dict[str, list[Seen]] = {
        name: [] for name in ("supervisors", "managers", "agents", "launchers", "steps", "tasks")
    }
    for seen in sorted(living(), key=lambda seen: seen.pid):
        kind = _kind(seen, folder)
        if kind:
            found[kind].append(seen)
    return Census(**{name: tuple(those) for name, those in found.items()})


def _kind(seen: Seen, folder: Path) -> str:
    inside = any(word.startswith(f"{folder}/") for word in seen.argv)
    if "pilot.agent.launcher" in seen.argv and inside:
        return "launchers"
    if "pilot.ranks.rank" in seen.argv and inside:
        if seen.program == "srun":
            return "steps"
        return "managers" if seen.environ.get("SLURM_PROCID") == "0" else "agents"
    if seen.attempt and seen.environ.get("CHAOS_FOLDER") == str(folder):
        return "tasks"
    if seen.argv[-3:-1] == ("-m", "pilot") and seen.argv[-1] == "run" and "SLURM_JOB_ID" in seen.environ:
        return "supervisors" if seen.environ.get("CHAOS_FOLDER") == str(folder) else ""
    return ""
