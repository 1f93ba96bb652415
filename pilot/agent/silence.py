"""Who has not been heard for how long. Pure: the caller says what time it is.

Time counts only while one listens: who was held up himself (a slow disk) must not take the others for dead.
"""

from collections.abc import Iterable

#: no single wait counts for more than this: what lies behind it was not listening
_ONE_WAIT_S = 1.0


class Silence:
    """Keeps the ear on some speakers.

    Args:
        speakers: who is expected.
        limit_s: whoever is silent for longer is lost.
        first_s: the same for who has never been heard: it has to start first.
        now: monotonic.
    """

    def __init__(self, speakers: Iterable[str], limit_s: float, first_s: float, now: float) -> None:
        self._listened_s = 0.0
        self._last = now
        self._limit_s = limit_s
        self._first_s = first_s
        self._heard: dict[str, float | None] = dict.fromkeys(speakers)

    def listen(self, now: float) -> None:
        """One has listened until now."""
        self._listened_s += min(max(0.0, now - self._last), _ONE_WAIT_S)
        self._last = now

    def heard(self, speaker: str) -> None:
        """This one has spoken."""
        self._heard[speaker] = self._listened_s

    def forget(self, speaker: str) -> None:
        """This one is not expected to speak any more."""
        self._heard.pop(speaker, None)

    def lost(self) -> list[tuple[str, float]]:
        """Who was silent for too long, and for how long (s); each is told once."""
        lost = [
            (speaker, self._listened_s - (heard or 0.0))
            for speaker, heard in self._heard.items()
            if self._listened_s - (heard or 0.0) > (self._first_s if heard is None else self._limit_s)
        ]
        for speaker, _ in lost:
            self.forget(speaker)
        return lost
