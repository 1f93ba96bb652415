"""The command line as a whole: which commands there are, and what becomes of errors.

A command's module is imported when the command is used, and its heavy part only when it does something: `pilot
status` must not wait for numpy.
"""

import importlib
from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from pilot.cli.guard import guarded

_START = "Make and check a campaign folder"
_RUN = "Run"
_LOOK = "Look"
_WORK = "Put work in, take it out"
_TAKE = "Take the results"

#: command → its module, the function there, and the group in which the help shows it; in the order of the help
COMMANDS = MappingProxyType(
    {
        "init": ("pilot.cli.init", "init", _START),
        "doctor": ("pilot.cli.doctor", "doctor", _START),
        "run": ("pilot.cli.run", "run", _RUN),
        "submit": ("pilot.cli.submit", "submit", _RUN),
        "drain": ("pilot.cli.steer", "drain", _RUN),
        "resume": ("pilot.cli.steer", "resume", _RUN),
        "status": ("pilot.cli.status", "status", _LOOK),
        "show": ("pilot.cli.show", "show", _LOOK),
        "log": ("pilot.cli.log", "log", _LOOK),
        "add": ("pilot.cli.add", "add", _WORK),
        "import": ("pilot.cli.import_labels", "import_labels", _WORK),
        "cancel": ("pilot.cli.steer", "cancel", _WORK),
        "retry": ("pilot.cli.steer", "retry", _WORK),
        "report": ("pilot.cli.report", "report", _TAKE),
        "export": ("pilot.cli.export", "export", _TAKE),
        "config-docs": ("pilot.cli.config_docs", "config_docs", _TAKE),
    }
)
_HIDDEN = frozenset({"config-docs"})


class _Commands(TyperGroup):
    """The commands by name, each made from its module when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            # all are made known, so that the nearest can be suggested
            self.commands.update({name: command(name) for name in COMMANDS})
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = command(cmd_name)
        return self.commands[cmd_name]


def command(name: str) -> Any:
    """One command as typer wants it."""
    path, function, panel = COMMANDS[name]
    module = importlib.import_module(path)
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    decorate = alone.command(
        name,
        cls=getattr(module, "COMMAND_CLASS", None),
        rich_help_panel=panel,
        hidden=name in _HIDDEN,
        no_args_is_help=getattr(module, "NEEDS_ARGUMENTS", False),
    )
    decorate(getattr(module, function))
    return get_command(alone)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"pilot {version('pilot-mtp')}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(
    epilog="The first steps: `pilot init mycampaign`, `cd mycampaign`, `pilot doctor`, `pilot run`. "
    "What a command does in full: `pilot COMMAND --help`, and docs/commands/."
)
def _pilot(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Runs many small tasks in one allocation, and trains moment tensor potentials with them.

    Every command works in a *campaign folder*: one that holds a `pilot.toml`.
    """


def run(argv: Sequence[str]) -> int:
    """Do what ``argv`` asks and report errors as what, where and next; the exit code."""
    return guarded(lambda: app(args=list(argv), prog_name="pilot"))
