"""Whether a pilot is alive in a folder, as far as can be seen from here."""

from dataclasses import dataclass

from pilot import host
from pilot.folder import Folder
from pilot.lease import SILENCE_S, Holder, read_holder

_PILOT = "run"


@dataclass(frozen=True, slots=True)
class Presence:
    """Who holds the folder.

    Attributes:
        alive: a pilot is alive: its process is seen, or it is on another machine and was heard lately.
        free: nobody holds the folder, or the holder is seen to be dead.
        holder: whoever holds the lease; it may be dead, or a command that has borrowed the folder for a moment.
        silent_s: how long the holder has not been heard.
    """

    alive: bool = False
    free: bool = True
    holder: Holder | None = None
    silent_s: float = 0.0


def look(folder: Folder) -> Presence:
    """Look at the lease.

    Raises:
        StorageError: the file is there but is not a lease.
    """
    holder = read_holder(folder)
    if holder is None:
        return Presence()
    silent_s = max(0.0, host.now() - holder.heartbeat)
    gone = holder.is_gone()
    lives = silent_s <= SILENCE_S if gone is None else not gone
    return Presence(lives and holder.purpose == _PILOT, gone is True, holder, silent_s)
