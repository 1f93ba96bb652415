"""What the supervisor tells the manager: drain, or that the end has moved. They may be two processes."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Drain, because of ``why``; ``at_once``: end what runs."""

    why: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class EndOrder:
    """Everything must be over at ``at`` (seconds since 1970): SLURM was asked again."""

    at: float


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
    match content["order"]:
        case "DrainOrder":
            return DrainOrder(str(content["why"]), bool(content["at_once"]))
        case "EndOrder":
            return EndOrder(float(content["at"]))
    raise ValueError(f"no order: {line!r}")
