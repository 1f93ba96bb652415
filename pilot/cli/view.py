"""Views put together from tables: `pilot status`, and the live view of `pilot run`."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from pilot import host
from pilot.cli import tables
from pilot.cli.headline import Batch, age, at_work, count, headline, next_steps
from pilot.cli.output import FAINT
from pilot.cli.presence import Presence, look
from pilot.cli.submitted import outstanding
from pilot.folder import Folder
from pilot.snapshot import CampaignStatus, Snapshot, read_snapshot

_FEW_GENERATIONS = 15
_FEW_RUNNING = 10
#: so many columns the whole table of generations wants
_WIDE = 76
#: as in pilot.cli.site_files, which is too heavy for here
_SCRIPT = "pilot.sh"


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a view; where there is no room for all, those with the highest ``rank`` are left out first."""

    rank: int
    body: RenderableType


def status_blocks(folder: Folder, *, everything: bool = False) -> list[Block]:
    """What `pilot status` prints, from the files of the folder.

    Raises:
        StorageError: they cannot be read.
    """
    snapshot, presence, now = read_snapshot(folder), look(folder), host.now()
    batch = batch_of(folder, snapshot)
    used = folder.copy.exists()
    blocks = [Block(0, line) for line in headline(snapshot, presence, now, batch, used=used)]
    if snapshot is not None:
        blocks.append(Block(0, age(snapshot, now)))
        blocks += facts(snapshot, presence, everything=everything)
    steps = [] if snapshot is None and used else next_steps(snapshot, alive=presence.alive, batch=batch)
    if steps:
        lines = [Text(("next:  " if number == 0 else "       ") + step) for number, step in enumerate(steps)]
        blocks.append(_apart(1, *lines))
    return blocks


def batch_of(folder: Folder, snapshot: Snapshot | None) -> Batch:
    """What is known of SLURM without asking it."""
    possible = (folder.root / _SCRIPT).exists() and shutil.which("sbatch") is not None
    return Batch(possible, outstanding(folder, None if snapshot is None else snapshot.pilot))


def facts(snapshot: Snapshot, presence: Presence, *, everything: bool = False) -> Iterator[Block]:
    """The facts of a snapshot, one block each."""
    campaign = snapshot.campaign
    if campaign is not None:
        yield _apart(1, tables.campaign_line(campaign))
    if snapshot.tasks:
        yield _apart(2, tables.task_counts(snapshot))
    works = at_work(snapshot, presence)
    why = tables.reasons(snapshot, alive=works)
    if why is not None:
        yield _apart(6, Text("why they wait", style="bold"), why)
    if works and snapshot.nodes:
        busy = tables.cores(snapshot.nodes)
        if snapshot.reserved_core_s > 0:
            busy.append(f"; {snapshot.useful_core_s / snapshot.reserved_core_s:.0%} of core-time useful so far")
        yield _apart(2, busy, *tables.lost_nodes(snapshot.nodes))
        if snapshot.running:
            limit = len(snapshot.running) if everything else _FEW_RUNNING
            total = max(len(snapshot.running), count(snapshot, "running"))
            yield Block(5, tables.running_tasks(snapshot.running, host.now(), limit, total))
    if snapshot.failures:
        yield _apart(2, tables.failures(snapshot.failures))
    if snapshot.room is not None and (snapshot.room.run_files or snapshot.room.packed):
        yield _apart(7, tables.room(snapshot.room))
    if campaign is not None and campaign.generations:
        yield _apart(3, _Generations(campaign, None if everything else _FEW_GENERATIONS))


@dataclass(frozen=True, slots=True)
class _Generations:
    """The table of generations, with fewer columns where there is no room for all."""

    campaign: CampaignStatus
    limit: int | None

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield tables.generations(self.campaign, self.limit, narrow=options.max_width < _WIDE)


def _apart(rank: int, *parts: RenderableType) -> Block:
    """A block with an empty line before it."""
    return Block(rank, Group(Text(""), *parts))


class LiveView:
    """What is seen while `pilot run` runs on a terminal; rendered anew at each refresh.

    Args:
        folder: of the campaign.
        lines: the latest lines of the log; whoever writes them goes on doing so.
    """

    def __init__(self, folder: Folder, lines: Collection[str]) -> None:
        self._folder = folder
        self._lines = lines
        self._snapshot: Snapshot | None = None
        self._presence = Presence()

    def show(self, snapshot: Snapshot) -> None:
        """From now on show this."""
        self._presence = look(self._folder)
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, _options: object) -> Iterator[RenderableType]:
        yield fitted(console, self._blocks())

    def _blocks(self) -> list[Block]:
        log = _apart(4, *(Text(line, style=FAINT, no_wrap=True, overflow="ellipsis") for line in tuple(self._lines)))
        if self._snapshot is None:
            return [Block(0, Text("starting …")), log]
        blocks = [Block(0, line) for line in headline(self._snapshot, self._presence, host.now())]
        return [*blocks, Block(0, _hint(self._snapshot)), *facts(self._snapshot, self._presence), log]


def _hint(snapshot: Snapshot) -> Text:
    if snapshot.pilot is not None and snapshot.pilot.state == "ended":
        return Text("ending", style=FAINT)
    if snapshot.pilot is not None and snapshot.pilot.state == "draining":
        return Text("draining: what runs may finish; Ctrl-C again ends what runs now", style="bold yellow")
    return Text("Ctrl-C drains: nothing new starts, what runs may finish", style=FAINT)


def fitted(console: Console, blocks: Sequence[Block]) -> Group:
    """As many of the blocks as the terminal has lines for."""
    room = console.size.height - 1
    heights = [len(console.render_lines(block.body, pad=False)) for block in blocks]
    kept = list(range(len(blocks)))
    while len(kept) > 1 and sum(heights[i] for i in kept) > room:
        kept.remove(max(kept, key=lambda i: (blocks[i].rank, i)))
    return Group(*(blocks[i].body for i in kept))
