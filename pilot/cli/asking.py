"""Asking the pilot: a request is put into the inbox and answered by the pilot, or applied here if none is alive."""

import os
import pwd
from collections.abc import Mapping
from typing import Any

from db.errors import HeldError, PilotError, StateError
from pilot import host, mailbox
from pilot.cli.output import say
from pilot.cli.presence import look
from pilot.folder import Folder
from pilot.mailbox import Request
from pilot.slurm.client import Slurm

#: How long an answer is awaited, and how often it is looked for, s.
PATIENCE_S = 15.0
POLL_S = 0.05
_LOOK_EVERY_S = 0.5
_SIGNAL_S = 5.0


class RefusedError(PilotError):
    """A request was understood and refused; carries what was answered."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(str(answer["said"]), where=str(answer.get("where", "")), next_step=str(answer.get("next", "")))
        self.exit_code = int(answer.get("code", 1))


def ask(folder: Folder, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask for something and wait for the answer; None if the pilot has not answered in time.

    A request without an answer stays in the inbox: it is applied once, whenever the pilot comes to it.

    Raises:
        RefusedError: it cannot be done.
        StateError: only a pilot can do it, and none is alive; or the folder is another user's.
        StorageError: the folder cannot be written.
    """
    _demand_owner(folder)
    if _is_for_a_pilot(verb, arguments) and not look(folder).alive:
        raise _no_pilot(folder)
    request = mailbox.post(folder, verb, arguments)
    if _is_for_a_pilot(verb, arguments):
        _signal(folder)
    answer = _wait(folder, request)
    if answer is not None and not answer["ok"]:
        raise RefusedError({"where": str(folder.root)} | {key: value for key, value in answer.items() if value})
    return answer


def _is_for_a_pilot(verb: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it means nothing where no pilot is: a time by which to end holds for the next one too."""
    return verb == "drain" and arguments.get("by") is None


def _demand_owner(folder: Folder) -> None:
    """Others of a project's group may read all; what they ask for would be refused by the pilot, so say it here."""
    try:
        owner = folder.inbox.stat().st_uid
    except FileNotFoundError:
        return  # nobody has used it yet
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"user {owner}"
        raise StateError(
            f"this folder is {name}'s: nobody else may steer its pilot",
            where=str(folder.root),
            next_step=f"ask {name}; `pilot status`, show, log and export work for you too",
        )


def _signal(folder: Folder) -> None:
    """A drain also rides on a signal: it arrives though the disk may be slow to show the request."""
    holder = look(folder).holder
    if holder is not None and holder.job_id is not None:
        Slurm(os.environ, question_s=_SIGNAL_S).signal(holder.job_id, "USR2")


def _wait(folder: Folder, request: Request) -> dict[str, Any] | None:
    begun = host.monotonic()
    look_at = 0.0
    while (now := host.monotonic()) < begun + PATIENCE_S:
        answer = mailbox.fetch_answer(folder, request)
        if answer is not None:
            return answer
        if now >= look_at:
            if look(folder).free:
                answer = _without_pilot(folder, request)
                if answer is not None:
                    return answer
            look_at = now + _LOOK_EVERY_S
        host.pause(POLL_S)
    return None


def _without_pilot(folder: Folder, request: Request) -> dict[str, Any] | None:
    """Apply a request ourselves; None if a pilot has come to life meanwhile.

    The request lies in the inbox until its effect is recorded under its id: should a pilot find it there, before or
    after, it still is applied once.
    """
    # not imported before: this needs the database and the campaign, which a request to a pilot does not
    from pilot.config import read_config
    from pilot.opening import apply_without_pilot

    if _is_for_a_pilot(request.verb, request.arguments):
        mailbox.withdraw(folder, request)
        raise _no_pilot(folder)
    try:
        answer = apply_without_pilot(folder, read_config(folder.config), request)
    except HeldError:
        return None
    except PilotError:
        mailbox.withdraw(folder, request)
        raise
    mailbox.withdraw(folder, request)
    return dict(answer)


def report(answer: Mapping[str, Any] | None) -> None:
    """Print what was answered."""
    if answer is None:
        say(
            f"the pilot has not answered within {PATIENCE_S:.0f} s: the request is in the inbox, and will be applied "
            "once; `pilot status` shows whether the pilot is alive"
        )
    else:
        say(str(answer["said"]))


def wait_for_the_end(folder: Folder) -> None:
    """Return when no pilot is alive any more."""
    while look(folder).alive:
        host.pause(_LOOK_EVERY_S)
    say("the pilot has ended")


def _no_pilot(folder: Folder) -> StateError:
    return StateError(
        "no pilot is alive in this folder",
        where=str(folder.root),
        next_step="there is nothing to drain; a job that waits in SLURM's queue is taken out by `scancel`",
    )
