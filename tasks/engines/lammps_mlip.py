"""Explore with the user's own LAMMPS and MLIP's pair style; see :mod:`tasks.engines.lammps_mlip_run`."""

from dataclasses import dataclass

from db.records import Json
from db.states import Verdict
from tasks.engines.mlip_output import argv_of
from tasks.engines.python_step import PythonStep
from tasks.programs import first_match, locate
from tasks.protocol import Command, Exit, Finding, Judgement, Work

_HELP_TIMEOUT_S = 20.0
_KILLED = "killed by SIGKILL"


@dataclass(frozen=True, slots=True)
class LammpsMlip:
    """As engine "lammps", with ``"settings"``: [explore.plugin]."""

    name: str = "lammps-mlip"
    writes_input: bool = True

    @property
    def _step(self) -> PythonStep:
        return PythonStep(
            name=self.name,
            step="explore-mlip",
            needs=("potential", "species", "seed", "gamma_save", "gamma_break", "max_saved", "settings"),
            writes=("preselected.cfg", "gamma.json"),
            stops=True,
        )

    def prepare(self, work: Work) -> Command:
        """Write task.json and say what to start.

        Raises:
            InputError: the spec has not all it needs.
            StorageError: the disk refuses.
        """
        return self._step.prepare(work)

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By result.json, which appears whole and last, and the way the process ended."""
        judgement = self._step.judge(work, end)
        if judgement.verdict is Verdict.CRASHED and _KILLED in judgement.reason:
            return Judgement(Verdict.OUT_OF_MEMORY, f"{judgement.reason}: most likely for its memory", judgement.facts)
        return judgement

    def stop_softly(self, work: Work) -> bool:
        """Put the file into its folder at which LAMMPS looks now and then."""
        return self._step.stop_softly(work)

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """There is no gentler way to do it."""
        return None

    def find(self, settings: Json) -> Finding:
        """Whether LAMMPS is there, and knows the pair style."""
        command = argv_of(str(settings.get("command", "lmp")))
        what = f"explore ({self.name})"
        cure = "build LAMMPS with MLIP's interface, and give its path as explore.plugin.command"
        place = locate(command[-1])
        if place is None:
            return Finding(what, f"{command[-1]} is not on the PATH", ok=False, cure=cure)
        style = first_match((*command, "-h"), r"(?s)Pair styles.*?\s(mlip)\s", env={}, timeout_s=_HELP_TIMEOUT_S)
        if style is None:
            return Finding(what, f"{place} does not know pair_style mlip", ok=False, cure=cure)
        return Finding(what, f"{place}, with pair_style mlip", ok=True)


ENGINE = LammpsMlip()
