"""Views put together from tables: `pilot status`, and the live view of `pilot run`."""

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from pilot import host
from pilot.cli import tables
from pilot.cli.headline import age, headline, next_steps
from pilot.cli.output import FAINT
from pilot.cli.presence import Presence, look
from pilot.folder import Folder
from pilot.snapshot import Snapshot, read_snapshot

_FEW_GENERATIONS = 15
_FEW_RUNNING = 10
_BLANK = Text("")


def status_blocks(folder: Folder, *, everything: bool = False) -> list[RenderableType]:
    """What `pilot status` prints, from the files of the folder.

    Raises:
        StorageError: they cannot be read.
    """
    snapshot, presence, now = read_snapshot(folder), look(folder), host.now()
    blocks: list[RenderableType] = list(headline(snapshot, presence, now))
    if snapshot is None:
        blocks.append(Text("next:  `pilot add -- COMMAND` puts work in; `pilot run` runs what pilot.toml says"))
        return blocks
    blocks.append(age(snapshot, now))
    for block in facts(snapshot, presence, everything=everything):
        blocks += [_BLANK, block]
    steps = next_steps(snapshot, alive=presence.alive)
    if steps:
        blocks.append(_BLANK)
        blocks += [Text(("next:  " if number == 0 else "       ") + step) for number, step in enumerate(steps)]
    return blocks


def facts(snapshot: Snapshot, presence: Presence, *, everything: bool = False) -> Iterator[RenderableType]:
    """The facts of a snapshot, one block each."""
    campaign = snapshot.campaign
    if campaign is not None:
        yield tables.campaign_line(campaign)
    if snapshot.tasks:
        yield tables.task_counts(snapshot)
    why = tables.reasons(snapshot, alive=presence.alive)
    if why is not None:
        yield Group(Text("why they wait", style="bold"), why)
    if presence.alive and snapshot.nodes:
        busy = tables.cores(snapshot.nodes)
        if snapshot.reserved_core_s > 0:
            busy.append(f"; {snapshot.useful_core_s / snapshot.reserved_core_s:.0%} of core-time useful so far")
        limit = len(snapshot.running) if everything else _FEW_RUNNING
        some = [tables.running_tasks(snapshot.running, host.now(), limit)] if snapshot.running else []
        yield Group(busy, *some)
    if snapshot.failures:
        yield tables.failures(snapshot.failures)
    if campaign is not None and campaign.generations:
        yield tables.generations(campaign, None if everything else _FEW_GENERATIONS)


class LiveView:
    """What is seen while `pilot run` runs on a terminal; rendered anew at each refresh.

    Attributes:
        snapshot: the latest.
        lines: the latest lines of the log.
        presence: ourselves, as the others see us.
    """

    def __init__(self, folder: Folder) -> None:
        self.snapshot: Snapshot | None = None
        self.lines: Sequence[str] = ()
        self.presence = Presence()
        self._folder = folder

    def show(self, snapshot: Snapshot) -> None:
        """From now on show this."""
        self.presence = look(self._folder)
        self.snapshot = snapshot

    def __rich_console__(self, console: Console, _options: object) -> Iterator[RenderableType]:
        yield fitted(console, self._blocks())

    def _blocks(self) -> list[RenderableType]:
        if self.snapshot is None:
            return [Text("starting …"), *self._log()]
        blocks: list[RenderableType] = list(headline(self.snapshot, self.presence, host.now()))
        blocks.append(self._hint(self.snapshot))
        for block in facts(self.snapshot, self.presence):
            blocks += [_BLANK, block]
        return [*blocks, _BLANK, *self._log()]

    @staticmethod
    def _hint(snapshot: Snapshot) -> Text:
        if snapshot.pilot is not None and snapshot.pilot.state == "draining":
            return Text("draining: what runs may finish; Ctrl-C again ends what runs now", style="bold yellow")
        return Text("Ctrl-C drains: nothing new starts, what runs may finish", style=FAINT)

    def _log(self) -> list[RenderableType]:
        return [Text(line, style=FAINT, no_wrap=True, overflow="ellipsis") for line in self.lines]


def fitted(console: Console, blocks: Sequence[RenderableType]) -> Group:
    """As many of the blocks as the terminal has lines for: the longest in the middle give way first."""
    room = console.size.height - 1
    heights = [len(console.render_lines(block, pad=False)) for block in blocks]
    kept = list(range(len(blocks)))
    while len(kept) > 3 and sum(heights[i] for i in kept) > room:
        # the first lines say whether all is well; of the rest the tallest goes
        kept.remove(max(kept[2:], key=lambda i: (heights[i], i)))
    return Group(*(blocks[i] for i in kept))
