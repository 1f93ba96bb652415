"""Doing nothing for a moment. The clock itself is in :mod:`pilot.host`."""

from threading import Event


def pause(seconds: float) -> None:
    """Wait; Ctrl-C is heard at once."""
    Event().wait(seconds)
