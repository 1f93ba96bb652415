"""What a long step looks up for now and then: has somebody asked it to stop, and is it time to say something?"""

from pathlib import Path

from pilot import host

STOP_FILE = "stop"

_CHECK_EVERY_S = 0.25
_SPEAK_EVERY_S = 10.0


class Attention:
    """Looks at the clock and at the file ``stop`` of the current folder, neither too often."""

    def __init__(self) -> None:
        self.stopped = False
        self._next_check = 0.0
        self._next_word = 0.0

    def look_up(self) -> bool:
        """Notice a request to stop (``stopped``); whether it is time for a word on how far we are."""
        now = host.monotonic()
        if now >= self._next_check:
            self._next_check = now + _CHECK_EVERY_S
            self.stopped = self.stopped or Path(STOP_FILE).exists()
        if now < self._next_word:
            return False
        self._next_word = now + _SPEAK_EVERY_S
        return True
