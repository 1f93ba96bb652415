"""What a minimiser has asked of its function, in order: with it the minimisation can be gone through again for nothing.

A minimiser is a program without memory of its own but for the answers that it got. Give it the same answers and it asks
the same questions; so an interrupted fit goes on, to the last bit, as if nobody had interrupted it: it is begun again,
the answers that are known are given at once, and only then is anything computed. Any minimiser can be treated so.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

VALUE, SLOPE = "v", "s"
_DIGEST = 16


class Evaluations:
    """The answers so far. Each belongs to a question: of which kind, and at which point."""

    def __init__(self) -> None:
        self._questions: list[bytes] = []
        self._answers: list[Floats] = []
        self._given = 0

    @property
    def count(self) -> int:
        """How many are known."""
        return len(self._questions)

    @property
    def replaying(self) -> bool:
        """Whether the next answer may be known already."""
        return self._given < len(self._questions)

    def recall(self, kind: str, point: Floats) -> Floats | None:
        """The next answer, if it is known and belongs to this question.

        At another question all that follows is forgotten: it would not come again. That happens when the computer
        rounds differently from the one before.
        """
        if not self.replaying:
            return None
        if self._questions[self._given] != _question(kind, point):
            print(
                f"this computer rounds differently: of {self.count} evaluations only {self._given} can be used",
                flush=True,
            )
            del self._questions[self._given :], self._answers[self._given :]
            return None
        self._given += 1
        return self._answers[self._given - 1]

    def add(self, kind: str, point: Floats, answer: Floats) -> None:
        """An answer that had to be computed."""
        self._questions.append(_question(kind, point))
        self._answers.append(np.array(answer, dtype=np.float64).ravel())
        self._given = len(self._questions)

    def state(self) -> tuple[dict[str, Any], bytes]:
        """All of it, to the last bit: what JSON can hold, and the rest."""
        sizes = [len(answer) for answer in self._answers]
        return {"sizes": sizes}, b"".join(self._questions) + b"".join(answer.tobytes() for answer in self._answers)

    def restore(self, state: Mapping[str, Any], rest: bytes) -> None:
        """Be what :meth:`state` told of, and begin at the beginning.

        Raises:
            ValueError: the two do not fit.
        """
        sizes = [int(size) for size in state["sizes"]]
        begin = _DIGEST * len(sizes)
        numbers = np.frombuffer(rest, dtype=np.float64, offset=begin)
        if len(numbers) != sum(sizes):
            raise ValueError(f"{len(numbers)} numbers, expected {sum(sizes)}")
        self._questions = [rest[at : at + _DIGEST] for at in range(0, begin, _DIGEST)]
        self._answers = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
        self._given = 0


def _question(kind: str, point: Floats) -> bytes:
    return hashlib.blake2b(point.tobytes(), digest_size=_DIGEST, person=kind.encode()).digest()
