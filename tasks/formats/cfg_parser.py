"""The grammar of MLIP's ``.cfg`` files: lines of text to blocks of words; what they mean is in ``cfg``."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from db.errors import InputError

#: as many digits has no number of atoms, and Python refuses to read the longest of numbers
_DIGITS = 9
#: so many lines of a table are looked at together: a wrong Size must not make us read the whole file
_PIECE = 4096


@dataclass(slots=True)
class Block:
    """One ``BEGIN_CFG … END_CFG``, its words not yet converted; line numbers count from 1.

    Attributes:
        where: the file.
        size: number of atoms.
        cell: the rows of ``Supercell``, each with its line.
        names: the columns of ``AtomData``.
        words: its words, row by row.
        plain: these words are ASCII without an underscore: what Python takes for a number is one.
        atoms_line: the line of ``AtomData``.
        energy: the word and its line.
        stress: names, words, and line.
        features: (name, value).
        parts: the names of the parts that were read; each but Feature may stand there once.
    """

    where: str
    size: int = -1
    cell: list[tuple[list[str], int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    plain: bool = False
    atoms_line: int = 0
    energy: tuple[str, int] | None = None
    stress: tuple[list[str], list[str], int] | None = None
    features: list[tuple[str, str]] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)

    def column(self, name: str) -> list[str]:
        """The words of a column of ``AtomData``."""
        return self.words[self.names.index(name) :: len(self.names)]

    def numbers(self, words: list[str], line: int) -> list[float]:
        """Convert words to finite numbers.

        Raises:
            InputError: one of them is not a finite number.
        """
        values = []
        for word in words:
            try:
                value = number(word)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise bad(f"{word!r} is not a finite number", self.where, line)
            values.append(value)
        return values


def number(word: str) -> float:
    """A number in any notation, Fortran's 1.0D-3 among them.

    Raises:
        ValueError: it is none.
    """
    # Python's own 1_0 and digits of other scripts are no numbers to anybody else
    if "_" in word or not word.isascii():
        raise ValueError(word)
    return float(word.replace("D", "e").replace("d", "e"))


def bad(what: str, where: str, line: int) -> InputError:
    """The error of a line that cannot be used."""
    return InputError(
        what,
        where=f"{where}, line {line}",
        next_step="correct that line, or remove its configuration from BEGIN_CFG to END_CFG",
    )


def read_blocks(lines: Iterable[str], where: str, before: int = 0) -> Iterator[Block]:
    """Split lines into blocks; ``before`` lines stand above them in the file.

    Raises:
        InputError: a line outside a block, a block that is cut short, or one that breaks the grammar.
    """
    reader = _Reader(lines, where, before)
    for text in reader:
        if text == "BEGIN_CFG":
            yield _read_block(reader)
        elif text:
            raise bad(f"expected BEGIN_CFG, found {text[:40]!r}: not a .cfg file?", where, reader.line)


class _Reader:
    """Lines without white space at their ends, counted, with one line of looking ahead."""

    def __init__(self, lines: Iterable[str], where: str, before: int) -> None:
        self._lines = iter(lines)
        self._kept: str | None = None
        self.where = where
        self.line = before

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._kept is not None:
            text, self._kept = self._kept, None
        else:
            text = next(self._lines).strip()
        self.line += 1
        if "\0" in text:
            # what a disk shows that has lost power, or room, while it wrote
            raise self.bad("a null byte")
        return text

    def table(self, rows: int, columns: int) -> tuple[list[str], bool]:
        """The words of the next lines, row by row, and whether they are plain.

        Raises:
            InputError: a line has another number of words, or the file ends here.
        """
        words: list[str] = []
        plain = True
        while rows > 0:
            piece = list(islice(self._lines, min(rows, _PIECE)))
            split = [line.split() for line in piece]
            text = "".join(piece)
            if "\0" in text or any(len(row) != columns for row in split):
                self._explain(piece, columns)
            self.line += len(piece)
            if not piece:
                self.inside()
            words.extend(chain.from_iterable(split))
            plain = plain and text.isascii() and "_" not in text
            rows -= len(piece)
        return words, plain

    def _explain(self, lines: list[str], columns: int) -> None:
        """Say which of the next lines is wrong."""
        for line in lines:
            self.line += 1
            if "\0" in line:
                raise self.bad("a null byte")
            if len(line.split()) != columns:
                raise self.bad(f"found {len(line.split())} columns where AtomData names {columns}")

    def put_back(self, text: str) -> None:
        """Let the next line be ``text`` again."""
        self._kept = text
        self.line -= 1

    def inside(self) -> str:
        """The next line, which must exist.

        Raises:
            InputError: the file ends here.
        """
        try:
            return next(self)
        except StopIteration:
            raise InputError(
                "the file ends in the middle of a configuration",
                where=f"{self.where}, line {self.line}",
                next_step="cut the file after its last END_CFG, or write it again",
            ) from None

    def bad(self, what: str) -> InputError:
        """The error of the present line."""
        return bad(what, self.where, self.line)


def _read_block(reader: _Reader) -> Block:
    block = Block(reader.where)
    begin = reader.line
    while True:
        text = reader.inside()
        if text == "END_CFG":
            break
        if text:
            _read_section(reader, block, text)
    if block.size < 0 or not block.names:
        raise bad("the configuration has no Size or no AtomData", reader.where, begin)
    return block


def _read_section(reader: _Reader, block: Block, text: str) -> None:
    words = text.split()
    if words[0] in block.parts:
        raise reader.bad(f"{words[0]} stands twice in one configuration")
    if words[0] != "Feature":
        block.parts.add(words[0])
    match words:
        case ["Size"]:
            block.size = _size(reader)
        case ["Supercell"]:
            block.cell = _cell(reader)
        case ["AtomData:", *names]:
            block.atoms_line = reader.line
            block.names = names
            block.words, block.plain = _atoms(reader, block.size, names)
        case ["Energy"]:
            found = reader.inside().split()
            if len(found) != 1:
                raise reader.bad("Energy needs one number in the line below it")
            block.energy = (found[0], reader.line)
        case ["PlusStress:", *names]:
            block.stress = (names, reader.inside().split(), reader.line)
        case ["Feature", name, *_]:
            block.features.append((name, " ".join(text.split(maxsplit=2)[2:])))
        case ["BEGIN_CFG"]:
            raise reader.bad("a configuration begins before the one above it has ended")
        case _:
            raise reader.bad(f"{words[0]!r} is not a part of a configuration")


def _size(reader: _Reader) -> int:
    text = reader.inside()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise reader.bad(f"Size needs a whole number in the line below it, found {text[:40]!r}")
    return int(text)


def _cell(reader: _Reader) -> list[tuple[list[str], int]]:
    rows: list[tuple[list[str], int]] = []
    while True:
        text = reader.inside()
        words = text.split()
        if not words or words[0][0].isalpha():
            reader.put_back(text)
            return rows
        if len(words) != 3 or len(rows) == 3:
            raise reader.bad("Supercell needs at most three rows of three numbers")
        rows.append((words, reader.line))


def _atoms(reader: _Reader, size: int, names: list[str]) -> tuple[list[str], bool]:
    if size < 1:
        raise reader.bad("AtomData needs a Size of at least 1 above it")
    if len(set(names)) != len(names):
        raise reader.bad("AtomData names a column twice")
    return reader.table(size, len(names))
