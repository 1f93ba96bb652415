"""The first lines of a view: is a pilot alive, how old is what is shown, and what to type next. Pure."""

from dataclasses import dataclass

from rich.text import Text

from pilot.cli.output import ERROR, FAINT, GOOD, WARNING, plural
from pilot.cli.presence import Presence
from pilot.cli.submitted import Submitted
from pilot.cli.tables import can_never_run, too_long
from pilot.drain import End
from pilot.durations import say_duration
from pilot.lease import SILENCE_S
from pilot.snapshot import PilotStatus, Snapshot


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of SLURM without asking it, which may take long.

    Attributes:
        possible: the folder has a batch script, and this machine SLURM's programs.
        submitted: a job that was handed in, of which no pilot has come yet.
    """

    possible: bool = False
    submitted: Submitted | None = None


def headline(
    snapshot: Snapshot | None, presence: Presence, now: float, batch: Batch = Batch(), *, used: bool = False
) -> list[Text]:
    """Whether a pilot is alive, first of all; ``used``: a pilot has worked in the folder before."""
    pilot = None if snapshot is None else snapshot.pilot
    if presence.alive:
        return [_living(snapshot, presence, now)]
    holder = presence.holder
    if holder is not None and not presence.free and presence.silent_s > SILENCE_S:
        silent = f"THE PILOT ON {holder.host} HAS BEEN SILENT FOR {say_duration(presence.silent_s)}"
        advice = "its machine cannot be seen from here; if you know that it is dead: `pilot doctor --release-lease`"
        return [Text(silent, style=ERROR), Text(advice)]
    if snapshot is not None and pilot is not None and pilot.state == "ended" and presence.free and _all_done(snapshot):
        return [Text("no pilot is alive, and none is needed: nothing is left to do", style=GOOD)]
    job = batch.submitted
    if job is not None and presence.free:
        ago = say_duration(max(0.0, now - job.at))
        return [
            Text(f"no pilot is alive yet: job {job.job_id} was submitted {ago} ago", style=WARNING),
            Text(
                f"`squeue -j {job.job_id}` shows whether it waits; if it is gone, see pilot-{job.job_id}.out, "
                "and `pilot submit` goes on"
            ),
        ]
    lines = [Text("NO PILOT IS ALIVE IN THIS FOLDER", style=ERROR)]
    if holder is not None and not presence.free:
        lines.append(Text(f"`pilot {holder.purpose}` holds it for a moment"))
    elif pilot is None:
        if snapshot is None:
            lines.append(Text(_nothing_published(used)))
    elif pilot.state == "ended":
        lines.append(Text(f"the last one, pilot {pilot.id} on {pilot.host}, has ended: {pilot.remark}"))
    else:
        again = _again(snapshot, batch)
        lines.append(Text(f"pilot {pilot.id} on {pilot.host} has died without a word; {again} goes on from there"))
    return lines


def _nothing_published(used: bool) -> str:
    if used:
        return (
            "state/status.json is gone: the next pilot publishes it again; until then `pilot status --tasks` tells more"
        )
    return "none has run here yet"


def _again(snapshot: Snapshot | None, batch: Batch) -> str:
    """What starts the next pilot: whoever came through SLURM goes on so."""
    pilot = None if snapshot is None else snapshot.pilot
    through_slurm = batch.possible or (pilot is not None and pilot.job_id is not None)
    return "`pilot submit`" if through_slurm else "`pilot run`"


def _all_done(snapshot: Snapshot) -> bool:
    return bool(snapshot.tasks) and not count(snapshot, "waiting", "ready", "running")


def at_work(snapshot: Snapshot | None, presence: Presence) -> bool:
    """Whether the facts are those of the pilot that is alive and works, and not of one before it."""
    pilot = None if snapshot is None else snapshot.pilot
    return _published_by(pilot, presence) and pilot is not None and pilot.state != "ended"


def _published_by(pilot: PilotStatus | None, presence: Presence) -> bool:
    holder = presence.holder
    return presence.alive and pilot is not None and holder is not None and pilot.id == holder.epoch


def _living(snapshot: Snapshot | None, presence: Presence, now: float) -> Text:
    pilot, holder = None if snapshot is None else snapshot.pilot, presence.holder
    assert holder is not None
    known = _published_by(pilot, presence)
    state = pilot.state if pilot is not None and known else "starting"
    # its work is over and recorded; it waits for its ranks to end
    state = "ending" if state == "ended" else state
    line = Text.assemble(
        f"pilot {holder.epoch or ''}".strip() + " is ",
        (state, GOOD if state == "active" else WARNING),
        f" on {holder.host} (pid {holder.pid}" + (f", job {holder.job_id})" if holder.job_id else ")"),
        f" for {say_duration(max(0.0, now - holder.since))}",
    )
    if pilot is not None and known:
        if pilot.remark:
            line.append(f" ({pilot.remark})", style=WARNING)
        if pilot.ends_at is not None and state != "ending":
            line.append(f", {say_duration(max(0.0, pilot.ends_at - now))} left")
        if pilot.stop_at is not None and pilot.state == "draining":
            line.append(_stops(pilot.stop_at - now))
    return line


def _stops(in_s: float) -> str:
    return f"; what still runs is asked to stop in {say_duration(in_s)}" if in_s > 0 else "; what ran was asked to stop"


def age(snapshot: Snapshot, now: float) -> Text:
    """How old the facts are."""
    return Text(f"as published {say_duration(max(0.0, now - snapshot.at))} ago in {snapshot.folder}", style=FAINT)


def count(snapshot: Snapshot, *states: str) -> int:
    """How many tasks are in one of the states."""
    return sum(of_kind.get(state, 0) for of_kind in snapshot.tasks.values() for state in states)


def next_steps(snapshot: Snapshot | None, *, alive: bool, batch: Batch = Batch()) -> list[str]:
    """What one would type now, with the reason."""
    if snapshot is None:
        return [] if alive or batch.submitted else [f"`pilot add -- COMMAND` puts work in; {_begin(batch)}"]
    steps: list[str] = []
    if count(snapshot, "failed"):
        first = f"{snapshot.failures[0].task}" if snapshot.failures else "TASK"
        steps.append(f"`pilot show {first}` and `pilot log {first}` tell more; `pilot retry --failed` when mended")
    long = too_long(snapshot)
    if long:
        need = "task needs" if long == 1 else "tasks need"
        steps.append(
            f"{long} {need} more time than an allocation like this one has: ask for a longer one, or, if less is "
            "enough, set resources.KIND.time_request in pilot.toml (`pilot add --time-request`)"
        )
    hopeless = can_never_run(snapshot) - long
    if hopeless and any(node.quarantined for node in snapshot.nodes):
        mended = f"mend what fails there, and {_again(snapshot, batch)} goes on"
        steps.append(f"{plural(hopeless, 'task')} cannot start, as nodes are quarantined: {mended}")
    elif hopeless:
        steps.append(
            f"{plural(hopeless, 'task')} can never run as things are: retry what failed, or `pilot cancel` them"
        )
    if alive:
        return steps
    left = count(snapshot, "waiting", "ready", "running") - hopeless - long
    campaign = snapshot.campaign
    if left > 0:
        # a job that waits goes on by itself
        steps += [] if batch.submitted else [f"{_again(snapshot, batch)} goes on{_when(snapshot)}"]
    elif campaign is not None and campaign.state == "not converged":
        steps.append(f"`pilot export`; or more max_generations in pilot.toml, and {_again(snapshot, batch)} goes on")
    elif campaign is not None and campaign.training_set:
        steps.append("`pilot export` writes the potential and the training set")
    elif not snapshot.tasks:
        steps.append(f"`pilot add -- COMMAND` puts work in; {_begin(batch)}")
    return steps


def _when(snapshot: Snapshot) -> str:
    """When that is of use: a time by which users want pilots to have ended holds for the next one too."""
    if snapshot.pilot is None or End.BY not in snapshot.pilot.remark:
        return ""
    return " after that time; `pilot resume` takes the time back"


def _begin(batch: Batch) -> str:
    if batch.possible:
        return "`pilot submit` asks for an allocation that runs it, and what pilot.toml says"
    return "`pilot run` runs it, and what pilot.toml says"
