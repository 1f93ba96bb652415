"""`pilot add`: putting work in by hand."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from db.errors import InputError
from pilot.cli.options import FolderOption
from pilot.folder import find_folder

_TYPED = "pilot.add.after_the_dashes"
_LABEL = "label"
NEEDS_ARGUMENTS = True


class COMMAND_CLASS(TyperCommand):  # noqa: N801 — a constant of this module, which happens to be a class
    """Keeps what stands behind ``--`` apart: it is the command to run, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[_TYPED] = args[place + 1 :]
            # so that nothing but `--` is not taken for a call without arguments
            args = args[:place] or ["--count", "1"]
        return super().parse_args(ctx, args)


def add(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND … | label FILES …",
            help="A command with its arguments, after two dashes; or `label` and files of structures.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it. Default: the command itself.", show_default=False)
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="MPI processes.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Cores of each rank; also OMP_NUM_THREADS.")] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Nodes over which the ranks are spread, as many on each (an MPI program).")
    ] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs, on each of its nodes.")] = 0,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help='Memory of the whole task, in MB or like "2 GB"; a task that exceeds it is ended. '
            "Default: its share by cores.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="TASKS", help="Start when these are done: 12, 3-7 or 3-7,12.", show_default=False),
    ] = None,
    after_ended: Annotated[
        list[str] | None,
        typer.Option(metavar="TASKS", help="Start when these have ended in whatever way.", show_default=False),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(help="Higher starts earlier. Default: 50 (labels have 60, explorations 90).", show_default=False),
    ] = None,
    time_request: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help='What it is expected to need ("10 min"): it is started only if so much is left. Default: unknown, 0.',
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End it after so long, as it hangs. Default: never.", show_default=False),
    ] = None,
    mpi: Annotated[
        bool | None,
        typer.Option(
            "--mpi/--no-mpi", help="Start it through MPI. Default: yes with more than one rank.", show_default=False
        ),
    ] = None,
    shell: Annotated[
        bool, typer.Option("--shell", help="The command is one line for /bin/sh, in quotes: pipes, redirections, ….")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A variable of its environment; give it again for more.", show_default=False
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Add it so many times; each finds its number, from 1, in $PILOT_NUMBER.")
    ] = 1,
    folder: FolderOption = None,
) -> None:
    """Put work in: any command, or structures to be labelled.

    The command runs in the folder in which you type this; what it prints goes to the attempt's folder under runs/, and
    `pilot log TASK` shows it. A pilot that is alive starts it at once; otherwise `pilot run` does.

    Examples: `pilot add --ranks 4 --after 12 -- pw.x -in a.in`; `pilot add --shell -- 'gzip -k *.out'`;
    `pilot add label structures.extxyz`.

    Structures: every frame of any file that ASE reads, or MLIP's .cfg. They become tasks of the kind label, with the
    resources of resources.label in pilot.toml, and count in the next training; --after, --after-ended, --priority,
    --time-request and --time-limit are for them too.
    """
    from pilot.cli import adding

    place = find_folder(folder)
    typed: list[str] | None = context.meta.get(_TYPED)
    before = words or []
    labels = before[:1] == [_LABEL]
    if before and not labels and typed is not None:
        raise InputError(
            f"{' '.join(before)!r} stands before the two dashes and the command behind them",
            next_step="pilot add [OPTIONS] -- COMMAND",
        )
    wanted = adding.Wanted(
        argv=tuple(before[1:] + (typed or []) if labels else before if typed is None else typed),
        name=name,
        ranks=ranks,
        threads=threads,
        nodes=nodes,
        gpus=gpus,
        memory=memory,
        after=tuple(after or ()),
        after_ended=tuple(after_ended or ()),
        priority=priority,
        time_request=time_request,
        time_limit=time_limit,
        mpi=mpi,
        shell=shell,
        env=tuple(env or ()),
        count=count,
    )
    if labels:
        adding.add_labels(place, wanted, _given(context))
    else:
        adding.add_commands(place, wanted)


def _given(context: typer.Context) -> list[str]:
    """The options that were typed, but for the folder."""
    return [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in {"words", "folder"} and _source(context, name) == "COMMANDLINE"
    ]


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "" if source is None else source.name
