"""The dynamics of an exploration: what temperature, pressure and cell are wanted, and when; pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Melt:
    """How a liquid is made before the run that is wanted (Novikov et al., MLST 2, 025002 (2021), section 5.2.2).

    Attributes:
        temperature: K, of melting.
        steps: of melting, at constant volume.
        cooling_steps: from there to the temperature that is wanted, and to the cell or the pressure that is wanted.
        scale: the lengths of the molten cell over those of the cell that is wanted.
    """

    temperature: float
    steps: int
    cooling_steps: int
    scale: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run.

    Attributes:
        first: the step at which it begins.
        last: the step at which it ends, and the next one begins.
        start: K, at its beginning.
        end: K, at its end.
        pressure: bar; None: the barostat is not at work.
        squeeze: whether the cell goes to the one that is wanted, linearly.
    """

    first: int
    last: int
    start: float
    end: float
    pressure: float | None
    squeeze: bool = False


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What LAMMPS is to do.

    Attributes:
        temperature: K.
        pressure: bar; None: constant volume.
        coupling: "iso", "aniso" or "tri": which parts of the cell may change.
        steps: number of steps, without those that make a liquid.
        timestep_fs: fs.
        seed: of the velocities.
        thermostat: False gives constant energy (to check the forces).
        melt: how a liquid is made first; None: it stays a crystal.
    """

    temperature: float
    pressure: float | None
    coupling: str
    steps: int
    timestep_fs: float
    seed: int
    thermostat: bool = True
    melt: Melt | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All stretches, in order."""
        t, melt = self.temperature, self.melt
        if melt is None:
            return (Phase(0, self.steps, t, t, self.pressure),)
        cold = melt.steps + melt.cooling_steps
        return (
            Phase(0, melt.steps, melt.temperature, melt.temperature, None),
            Phase(melt.steps, cold, melt.temperature, t, self.pressure, squeeze=self.pressure is None),
            Phase(cold, cold + self.steps, t, t, self.pressure),
        )

    @property
    def all_steps(self) -> int:
        """Those that make a liquid, too."""
        return self.phases[-1].last

    def phase_at(self, step: int) -> Phase:
        """That which goes on from a step."""
        return next(phase for phase in self.phases if step < phase.last or phase is self.phases[-1])

    @property
    def scale(self) -> float:
        """The lengths of the cell at the beginning over those of the cell that is wanted."""
        return 1.0 if self.melt is None else self.melt.scale
