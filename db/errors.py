"""What can go wrong for a user, one class a cause.

Every error says what is wrong, where, and the next command to type. The command line prints the three
and exits with the class's ``exit_code``; nothing else decides how an error looks.

    PilotError
    ├── InputError          what the user wrote cannot be used (pilot.toml, a structure, an option)
    ├── MissingError        a program, library, file or task that is needed is not there
    ├── HeldError           another pilot holds the folder
    ├── StateError          the change asked for is not possible in the present state
    ├── StorageError        the database or the disk refuses (full, newer schema, damaged)
    └── LostLeaseError      this process is no longer the writer: it must stop at once
"""


class PilotError(Exception):
    """Base of all errors that are shown to a user as what, where and next.

    Args:
        what: one sentence: what is wrong.
        where: the file, key, task or place it is about.
        next_step: the command to type or the change to make.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"where: {self.where}")
        if self.next_step:
            parts.append(f"next:  {self.next_step}")
        return "\n".join(parts)


class InputError(PilotError):
    """What the user wrote cannot be used."""

    exit_code = 2


class MissingError(PilotError):
    """A program, library, file or task that is needed is not there."""

    exit_code = 3


class HeldError(PilotError):
    """Another pilot holds the folder."""

    exit_code = 4


class StateError(PilotError):
    """The change asked for is not possible in the present state."""

    exit_code = 5


class StorageError(PilotError):
    """The database or the disk refuses."""

    exit_code = 6


class LostLeaseError(PilotError):
    """This process is no longer the writer of the database: it must stop at once, without writing."""

    exit_code = 7
