"""The first lines of a view: is a pilot alive, how old is what is shown, and what to type next. Pure."""

from rich.text import Text

from pilot.cli.output import ERROR, FAINT, GOOD, WARNING
from pilot.cli.presence import Presence
from pilot.cli.tables import can_never_run
from pilot.durations import say_duration
from pilot.lease import SILENCE_S
from pilot.snapshot import PilotStatus, Snapshot


def headline(snapshot: Snapshot | None, presence: Presence, now: float) -> list[Text]:
    """Whether a pilot is alive, first of all."""
    pilot = None if snapshot is None else snapshot.pilot
    if presence.alive:
        return [_living(pilot, presence, now)]
    holder = presence.holder
    if holder is not None and not presence.free and presence.silent_s > SILENCE_S:
        silent = f"THE PILOT ON {holder.host} HAS BEEN SILENT FOR {say_duration(presence.silent_s)}"
        advice = "its machine cannot be seen from here; if you know that it is dead: `pilot doctor --release-lease`"
        return [Text(silent, style=ERROR), Text(advice)]
    if snapshot is not None and pilot is not None and pilot.state == "ended" and presence.free and _all_done(snapshot):
        return [Text("no pilot is alive, and none is needed: nothing is left to do", style=GOOD)]
    lines = [Text("NO PILOT IS ALIVE IN THIS FOLDER", style=ERROR)]
    if holder is not None and not presence.free:
        lines.append(Text(f"`pilot {holder.purpose}` holds it for a moment"))
    elif pilot is None:
        if snapshot is None:
            lines.append(Text("none has run here yet"))
    elif pilot.state == "ended":
        lines.append(Text(f"the last one, pilot {pilot.id} on {pilot.host}, has ended: {pilot.remark}"))
    else:
        again = _again(snapshot) if snapshot is not None else "`pilot run`"
        lines.append(Text(f"pilot {pilot.id} on {pilot.host} has died without a word; {again} goes on from there"))
    return lines


def _again(snapshot: Snapshot) -> str:
    """What starts the next pilot: whoever came through SLURM goes on so."""
    through_slurm = snapshot.pilot is not None and snapshot.pilot.job_id is not None
    return "`pilot submit`" if through_slurm else "`pilot run`"


def _all_done(snapshot: Snapshot) -> bool:
    return bool(snapshot.tasks) and not count(snapshot, "waiting", "ready", "running")


def _living(pilot: PilotStatus | None, presence: Presence, now: float) -> Text:
    holder = presence.holder
    assert holder is not None
    known = pilot is not None and pilot.id == holder.epoch
    state = pilot.state if pilot is not None and known else "starting"
    line = Text.assemble(
        f"pilot {holder.epoch or ''}".strip() + " is ",
        (state, GOOD if state == "active" else WARNING),
        f" on {holder.host} (pid {holder.pid}" + (f", job {holder.job_id})" if holder.job_id else ")"),
        f" for {say_duration(max(0.0, now - holder.since))}",
    )
    if pilot is not None and known:
        if pilot.remark:
            line.append(f" ({pilot.remark})", style=WARNING)
        if pilot.ends_at is not None:
            line.append(f", {say_duration(max(0.0, pilot.ends_at - now))} left")
    return line


def age(snapshot: Snapshot, now: float) -> Text:
    """How old the facts are."""
    return Text(f"as published {say_duration(max(0.0, now - snapshot.at))} ago in {snapshot.folder}", style=FAINT)


def count(snapshot: Snapshot, *states: str) -> int:
    """How many tasks are in one of the states."""
    return sum(of_kind.get(state, 0) for of_kind in snapshot.tasks.values() for state in states)


def next_steps(snapshot: Snapshot, *, alive: bool) -> list[str]:
    """What one would type now, with the reason."""
    steps: list[str] = []
    if count(snapshot, "failed"):
        first = f"{snapshot.failures[0].task}" if snapshot.failures else "TASK"
        steps.append(f"`pilot show {first}` and `pilot log {first}` tell more; `pilot retry --failed` when mended")
    hopeless = can_never_run(snapshot)
    if hopeless:
        steps.append(f"{hopeless} can never run as things are: retry what failed, or `pilot cancel` them")
    if alive:
        return steps
    left = count(snapshot, "waiting", "ready", "running") - hopeless
    campaign = snapshot.campaign
    if left > 0:
        steps.append(f"{_again(snapshot)} goes on")
    elif campaign is not None and campaign.state == "not converged":
        steps.append("`pilot export`; or more max_generations in pilot.toml, and `pilot run` goes on")
    elif campaign is not None and campaign.training_set:
        steps.append("`pilot export` writes the potential and the training set")
    elif not snapshot.tasks:
        steps.append("`pilot add -- COMMAND` puts work in; `pilot run` runs it")
    return steps
