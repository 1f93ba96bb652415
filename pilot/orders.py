"""What the supervisor tells the manager: drain, or that an end has moved. They may be two processes."""

import json
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pilot.drain import End, Urgency


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Drain, because of ``why``."""

    why: str
    urgency: Urgency = Urgency.WISH


@dataclass(frozen=True, slots=True)
class EndOrder:
    """Everything must be over at ``at`` (seconds since 1970) because of ``end``; None: not because of that any more."""

    end: End
    at: float | None


Order = DrainOrder | EndOrder


class Orders:
    """Orders that wait to be taken. Putting one is safe in a signal handler and in another thread."""

    def __init__(self, waiting: Iterable[Order] = ()) -> None:
        self._waiting = deque(waiting)

    def put(self, order: Order) -> None:
        """Give an order."""
        self._waiting.append(order)

    def take(self) -> list[Order]:
        """All that wait, in order; they are gone then."""
        taken: list[Order] = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken


def to_line(order: Order) -> bytes:
    """For the pipe between two processes."""
    return json.dumps({"order": type(order).__name__} | asdict(order)).encode() + b"\n"


def from_line(line: bytes) -> Order:
    """The inverse of :func:`to_line`.

    Raises:
        ValueError, KeyError: it is no order.
    """
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError(f"no order: {line!r}")  # noqa: TRY004 — whoever reads lines knows that one
    match content["order"]:
        case "DrainOrder":
            return DrainOrder(str(content["why"]), Urgency(content["urgency"]))
        case "EndOrder":
            return EndOrder(End(content["end"]), None if content["at"] is None else _moment(content["at"]))
    raise ValueError(f"no order: {line!r}")


def _moment(given: object) -> float:
    if not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(f"no moment: {given!r}")
    return float(given)
