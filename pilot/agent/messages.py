"""What the manager and the agents say to each other. Plain records: they travel by MPI or in one process."""

from dataclasses import dataclass, field

from db.records import Json, Resources
from tasks.protocol import Cause, Exit, Judgement


@dataclass(frozen=True, slots=True)
class Start:
    """Manager → agent: start this attempt on these cores."""

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
class Hello:
    """Agent → manager: this node is here, and this is what we may use of it."""

    node: str
    cores: tuple[int, ...]
    memory_mb: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """Agent → manager: this attempt has ended, and this is what its engine says of it."""

    attempt_id: int
    end: Exit
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Trouble:
    """Agent → manager: something about the node itself (its launcher died and was started again, …)."""

    node: str
    text: str


ToAgent = Start | Stop | Goodbye
ToManager = Hello | Ended | Trouble


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent needs to know of the campaign.

    Attributes:
        root: the campaign folder.
        campaign_id: a random name; every process we start carries it as PILOT_CAMPAIGN.
        epoch: the id of the pilot; carried as PILOT_EPOCH, so that a later pilot knows what is left of us.
        engine_settings: for each engine its table of pilot.toml.
        mpi_launcher: "auto", or the name of a module in pilot/mpi.
        site_env: environment the user asks for in every task.
    """

    root: str
    campaign_id: str
    epoch: int
    engine_settings: Json = field(default_factory=dict)
    mpi_launcher: str = "auto"
    site_env: Json = field(default_factory=dict)
