"""The faults: each has a name and a way to strike, and says whom it struck; "" when nobody was there to be struck."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from field import PILOT, Field
from processes import Census, Seen

#: of the state folder, on a disk of its own (see ``chaos.py``), that is full for so many seconds
FULL_S = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """``strike`` gets the field and a number in [0, 1) that chooses the victim and how hard it is struck."""

    name: str
    strike: Callable[[Field, float], str]


def _one(those: Sequence[Seen], choice: float) -> Seen | None:
    return those[int(choice * len(those))] if those else None


def _told(victims: Iterable[Seen]) -> str:
    return ", ".join(_name(seen) for seen in victims)


def _name(seen: Seen) -> str:
    of = f" of attempt {seen.attempt}" if seen.attempt else ""
    return f"{seen.program} {seen.pid} on {seen.node}{of}"


def _kill(whom: Callable[[Census], Sequence[Seen]]) -> Callable[[Field, float], str]:
    """SIGKILL to one of them."""

    def strike(field: Field, choice: float) -> str:
        victim = _one(whom(field.census()), choice)
        return _told([victim]) if victim is not None and victim.send(signal.SIGKILL) else ""

    return strike


def _stop(whom: Callable[[Census], Sequence[Seen]], longest_s: float) -> Callable[[Field, float], str]:
    """SIGSTOP to one of them, and SIGCONT some time later."""

    def strike(field: Field, choice: float) -> str:
        victim = _one(whom(field.census()), choice)
        if victim is None or not victim.send(signal.SIGSTOP):
            return ""
        seconds = 0.5 + longest_s * (7 * choice % 1)
        field.later(seconds, "continue", lambda: victim.send(signal.SIGCONT))
        return f"{_told([victim])} for {seconds:.1f} s"

    return strike


def _kill_together(whom: Callable[[Census], Sequence[Seen]]) -> Callable[[Field, float], str]:
    """SIGKILL to all of them."""

    def strike(field: Field, choice: float) -> str:
        victims = whom(field.census())
        for victim in victims:
            victim.send(signal.SIGSTOP)
        for victim in victims:
            victim.send(signal.SIGKILL)
        return _told(victims)

    return strike


def _manager_and_its_launcher(now: Census) -> list[Seen]:
    managers = now.managers or now.supervisors
    return [*managers, *(seen for seen in now.launchers if any(seen.node == other.node for other in managers))]


def _agent_and_its_launcher(now: Census) -> list[Seen]:
    agents = now.agents[:1]
    return [*agents, *(seen for seen in now.launchers if any(seen.node == other.node for other in agents))]


def _all_of_the_pilot(now: Census) -> list[Seen]:
    return [*now.supervisors, *now.steps, *now.managers, *now.agents, *now.launchers]


def node_gone(field: Field, choice: float) -> str:
    """A node with all that is on it; SLURM is told, or finds out; it comes back some seconds later."""
    nodes = [node for node in field.cluster.nodes if node not in field.dead_nodes]
    if len(nodes) < 2:
        return ""
    node = nodes[int(choice * len(nodes))]
    field.dead_nodes.add(node)
    field.cluster.kill_node(node)
    told = 5 * choice % 1 < 0.5
    if told:
        field.cluster.down(node)
    seconds = 3.0 + 12.0 * (7 * choice % 1)

    def back() -> None:
        if node not in field.cluster.daemons:
            field.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=chaos")
            field.cluster.restart_node(node, wait=False)
        field.dead_nodes.discard(node)

    field.later(seconds, f"{node} is back", back)
    return f"{node} for {seconds:.0f} s" + (", SLURM is told" if told else "")


def _to_the_job(*options: str) -> Callable[[Field, float], str]:
    """scancel with such options."""

    def strike(field: Field, choice: float) -> str:
        job = field.running_job()
        if not job:
            return ""
        field.slurm("scancel", *options, job)
        return f"job {job}"

    return strike


def requeue(field: Field, choice: float) -> str:
    """The job back into the queue, to start again at once."""
    job = field.running_job()
    if not job:
        return ""
    field.slurm("scontrol", "requeue", job)
    for seconds in (2.0, 6.0, 12.0):  # as soon as it has left its nodes
        field.later(seconds, "start again", lambda: field.slurm("scontrol", "update", f"JobId={job}", "StartTime=now"))
    return f"job {job}"


def wall_time(field: Field, choice: float) -> str:
    """The time is over at once: the limit is set to what has passed."""
    job = field.running_job()
    if not job:
        return ""
    field.slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    now = field.cluster.job(job)
    return f"job {job} after {now.get('RunTime', '?')}"


def _order(*argv: str) -> Callable[[Field, float], str]:
    """A command of pilot's to whoever runs; the faults do not wait for its answer for long."""

    def strike(field: Field, choice: float) -> str:
        if not field.census().supervisors:
            return ""
        verb, *rest = argv
        command = subprocess.Popen(
            [*PILOT, verb, "--folder", str(field.folder), *rest],
            env=field.cluster.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said = command.communicate(timeout=4)[0].strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            field.later(20.0, f"{verb} was answered", command.communicate)
            return "no answer yet"
        return f"code {command.returncode}: {said}"

    return strike


def drain_and_resume(field: Field, choice: float) -> str:
    """A drain that is taken back a moment later."""
    said = _order("drain")(field, choice)
    if said:
        field.later(2.0 * choice, "resume", lambda: field.note("resume", said=_order("resume")(field, choice)))
    return said


def second_pilot(field: Field, choice: float) -> str:
    """`pilot run` where one lives: it must be refused."""
    if not field.census().supervisors:
        return ""
    second = subprocess.Popen(
        [*PILOT, "run", "--plain", "--cores", "1", "--walltime", "60 s", "--folder", str(field.folder)],
        env={**field.cluster.environ, "CHAOS_FOLDER": str(field.folder), "TMPDIR": str(field.root / "tmp")},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = second.communicate(timeout=15)[1].strip().splitlines()[:1]
    except subprocess.TimeoutExpired:
        # the first had just died, and it took the folder
        field.later(90.0, "the second pilot is over", second.communicate)
        return f"pid {second.pid} runs"
    return f"code {second.returncode}: {said}"


def command_killed(field: Field, choice: float) -> str:
    """`pilot add` that is killed in the middle: it was added once or not at all."""
    task = field.known_later("killed")
    argv = [*PILOT, "add", "--folder", str(field.folder), "--name", task.name, "--", *task.argv(field.script)]
    task.asked = "maybe"
    with subprocess.Popen(
        argv, env=field.cluster.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as command:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(0.3 + 1.5 * choice)
        command.kill()
    return f"{task.name}, code {command.returncode}"


def garbage_in_the_inbox(field: Field, choice: float) -> str:
    """Half a request, something that is none, a folder, a link to nowhere, an unknown verb."""
    inbox = field.state / "inbox"
    if not inbox.is_dir():
        return ""
    name = f"{time.time():017.6f}-{int(choice * 1e8):08x}"
    path = inbox / f"{name}.json"
    whole = json.dumps({"id": name, "verb": "cancel", "at": 0, "arguments": {"tasks": [1]}})
    what = int(choice * 6)
    if what == 0:
        path.write_text(whole[: len(whole) // 2])
    elif what == 1:
        path.write_bytes(os.urandom(3000))
    elif what == 2:
        path.mkdir()
    elif what == 3:
        path.symlink_to("/nowhere/at/all")
    elif what == 4:
        path.write_text(whole.replace("cancel", "explode"))
    else:
        path.write_text("[" * 100_000)
    return f"{path.name} ({['half', 'noise', 'folder', 'link', 'unknown verb', 'deep'][what]})"


def torn_files(field: Field, choice: float) -> str:
    """The snapshot or the copy cut in two, a line of a journal without its end, a file that a dead writer left."""
    status, copy = field.state / "status.json", field.state / "copy.db"
    what = int(choice * 4)
    victims = [status, copy, *sorted((field.state / "ends").glob("*.jsonl"))[-1:]]
    if what == 3:
        left = field.state / ".status.json.99999999.new"
        left.write_text('{"schema"')
        return f"{left.name} left"
    if what >= len(victims) or not victims[what].exists():
        return ""
    victim = victims[what]
    if what == 2:
        with victim.open("ab") as file:
            file.write(b'{"ev": "ended", "id": 1, "co\n')
        return f"a torn line in {victim.name}"
    half = victim.stat().st_size // 2
    # in place, as a crash of the machine would leave it
    with victim.open("r+b") as file:
        file.truncate(half)
    return f"{victim.name} cut to {half} bytes"


def state_folder_cannot_be_written(field: Field, choice: float) -> str:
    """No file can be made, renamed or removed in state/ for some seconds."""
    seconds = 0.5 + 4.0 * choice
    if subprocess.run(["chattr", "+i", str(field.state)], capture_output=True, check=False).returncode != 0:
        return ""
    field.later(seconds, "writable", lambda: subprocess.run(["chattr", "-i", str(field.state)], check=True))
    return f"for {seconds:.1f} s"


def disk_full(field: Field, choice: float) -> str:
    """The disk of state/ is full for some seconds."""
    if not os.path.ismount(field.state):
        return ""
    filler = field.state / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))
    seconds = FULL_S[0] + (FULL_S[1] - FULL_S[0]) * choice
    field.later(seconds, "room again", lambda: filler.unlink(missing_ok=True))
    return f"for {seconds:.1f} s, filler of {filler.stat().st_size} bytes"


def attempt_folder_gone(field: Field, choice: float) -> str:
    """The folder of an attempt that runs is removed under it."""
    victim = _one(field.census().running("pw.x"), choice)
    if victim is None:
        return ""
    number = int(victim.attempt)
    folder = field.folder / "runs" / f"{number // 200:03d}" / f"{number:06d}"
    subprocess.run(["rm", "-rf", str(folder)], check=False)
    return str(Path(*folder.parts[-3:]))


FAULTS: tuple[Fault, ...] = (
    Fault("kill supervisor", _kill(lambda now: now.supervisors)),
    Fault("kill manager", _kill(lambda now: now.managers)),
    Fault("kill agent", _kill(lambda now: now.agents)),
    Fault("kill launcher", _kill(lambda now: now.launchers)),
    Fault("kill srun of the ranks", _kill(lambda now: now.steps)),
    Fault("kill first process of a task", _kill(Census.first_of_tasks)),
    Fault("kill process of a task", _kill(lambda now: now.tasks)),
    Fault("kill mpirun", _kill(lambda now: now.running("mpirun", "orted"))),
    Fault("kill pw.x", _kill(lambda now: now.running("pw.x"))),
    Fault("kill manager and its launcher", _kill_together(_manager_and_its_launcher)),
    Fault("kill agent and its launcher", _kill_together(_agent_and_its_launcher)),
    Fault("kill all launchers", _kill_together(lambda now: now.launchers)),
    Fault("kill the whole pilot", _kill_together(_all_of_the_pilot)),
    Fault("kill everything", _kill_together(Census.everyone)),
    Fault("stop supervisor", _stop(lambda now: now.supervisors, 8.0)),
    Fault("stop manager", _stop(lambda now: now.managers, 12.0)),
    Fault("stop agent", _stop(lambda now: now.agents, 12.0)),
    Fault("stop launcher", _stop(lambda now: now.launchers, 12.0)),
    Fault("stop process of a task", _stop(lambda now: now.tasks, 6.0)),
    Fault("node gone", node_gone),
    Fault("scancel", _to_the_job()),
    Fault("scancel USR1", _to_the_job("--batch", "--signal=USR1")),
    Fault("scancel TERM", _to_the_job("--batch", "--signal=TERM")),
    Fault("scancel KILL", _to_the_job("--full", "--signal=KILL")),
    Fault("requeue", requeue),
    Fault("wall time", wall_time),
    Fault("drain", _order("drain")),
    Fault("drain now", _order("drain", "--now")),
    Fault("resume", _order("resume")),
    Fault("drain and resume", drain_and_resume),
    Fault("second pilot", second_pilot),
    Fault("command killed", command_killed),
    Fault("garbage in the inbox", garbage_in_the_inbox),
    Fault("torn files", torn_files),
    Fault("state cannot be written", state_folder_cannot_be_written),
    Fault("disk full", disk_full),
    Fault("attempt folder gone", attempt_folder_gone),
)
