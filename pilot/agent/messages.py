"""What the manager and the agents say to each other. Plain records: they travel by MPI or in one process."""

from dataclasses import dataclass, field

from db.records import Json, Resources, Share
from tasks.protocol import Cause, Exit, Judgement


@dataclass(frozen=True, slots=True)
class Start:
    """Manager → agent: start this attempt on these cores.

    ``others`` is what it holds on further nodes, ``mpi`` the launcher of its ranks ("auto": by what is found),
    ``previous`` the folder of an interrupted attempt to go on from ("": it starts afresh).
    """

    attempt_id: int
    task_id: int
    engine: str
    spec: Json
    directory: str
    resources: Resources
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    memory_mb: int
    time_limit_s: float | None
    time_left_s: float | None
    others: tuple[Share, ...] = ()
    mpi: str = "auto"
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Manager → agent: end this attempt, because of ``cause``.

    ``soft`` asks in the engine's own way first and goes on to SIGTERM after ``soft_s`` and to SIGKILL after
    ``term_s`` more; without it SIGTERM comes at once.
    """

    attempt_id: int
    cause: Cause
    soft: bool = True
    soft_s: float = 30.0
    term_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Manager → agent: end all that runs and leave."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Manager → agent: end what is left here of an attempt whose head ran on another node."""

    attempt_id: int


@dataclass(frozen=True, slots=True)
class Again:
    """Manager → agent: you were taken for lost; end all that runs and greet me as if you had just come."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Agent → manager: this node is here, and this is what we may use of it.

    Attributes:
        domains: levels, the finest first, each the groups of cores that share a cache or a memory bank.
        pinned: the cores are the kernel's own; else they are only counted, and nothing is pinned to them.
    """

    node: str
    cores: tuple[int, ...]
    memory_mb: int
    gpus: tuple[int, ...] = ()
    domains: tuple[tuple[tuple[int, ...], ...], ...] = ()
    pinned: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """Agent → manager: this attempt has ended, and this is what its engine says of it.

    ``files`` and ``bytes`` are what its folder holds.
    """

    attempt_id: int
    end: Exit
    judgement: Judgement
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Agent → manager: something about the node itself (its launcher died and was started again, …)."""

    node: str
    text: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Comm → manager: nothing is heard of this node any more; its agent is written off."""

    node: str
    why: str


ToAgent = Start | Stop | Sweep | Again | Goodbye
ToManager = Hello | Ended | Trouble | Gone


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent needs to know of the campaign.

    Attributes:
        root: the campaign folder.
        campaign_id: a random name; every process we start carries it as PILOT_CAMPAIGN.
        epoch: the id of the pilot; carried as PILOT_EPOCH, so that a later pilot knows what is left of us.
        mpi_extra: arguments that the site wants to be given to its MPI launcher.
        site_env: environment the user asks for in every task.
        hyperthreads: use all hardware threads of a core, not one.
        max_output_mb: a task that writes more to its standard output and error is ended; 0: it may.
    """

    root: str
    campaign_id: str
    epoch: int
    mpi_extra: tuple[str, ...] = ()
    site_env: Json = field(default_factory=dict)
    hyperthreads: bool = False
    max_output_mb: int = 0
