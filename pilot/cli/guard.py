"""What becomes of errors: a sentence and an exit code."""

import sys
from collections.abc import Callable

from db.errors import PilotError, StorageError

#: Exit code for what nobody foresaw.
BUG = 70
_BROKEN_PIPE = 141


def guarded(action: Callable[[], object]) -> int:
    """Do something for a user; errors become what, where and next on stderr. Returns the exit code."""
    try:
        action()
        sys.stdout.flush()
    except PilotError as error:
        # rich is not imported before there is something to print
        from pilot.cli.output import print_error

        print_error(error)
        return error.exit_code
    except PermissionError as error:
        # a folder or a file of somebody else, met where nobody looked for it
        from pilot.cli.output import print_error

        forbidden = StorageError(
            "permission denied", where=str(error.filename or ""), next_step="`ls -ld` shows owner and permissions"
        )
        print_error(forbidden)
        return forbidden.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        # whoever read our output (`| head`) has seen enough; nothing more may be written, not even at the exit
        sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115
        return _BROKEN_PIPE
    except Exception as error:  # the last place where it can be explained
        from pilot.cli.output import print_bug

        print_bug(error)
        return BUG
    return 0
