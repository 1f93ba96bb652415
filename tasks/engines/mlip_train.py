"""Train with ``mlp``, the program of MLIP-3 or of MLIP-2; see :mod:`tasks.engines.mlip_training`.

There is no soft stop: MLIP writes its potential during the fit, but not what its minimiser remembers, so a fit that
went on from there would be another one. An interrupted training begins again.
"""

import dataclasses
from dataclasses import dataclass

from db.records import Json
from db.states import Verdict
from tasks.engines.mlip_output import argv_of
from tasks.engines.mlip_program import MLIP_3
from tasks.engines.python_step import PythonStep
from tasks.programs import first_match, locate
from tasks.protocol import Command, Exit, Finding, Judgement, Work

#: in a serial and in an MPI build
_VERSION = r"mlp ((?:serial|mpi) version)"
_VERSION_TIMEOUT_S = 20.0
#: how the step tells of a signal that ended ``mlp``, and not the step
_KILLED = "killed by SIGKILL"


@dataclass(frozen=True, slots=True)
class MlipTraining:
    """``{"train", "holdout", "start", "level", …, "settings": [train.mlip]}`` to a potential."""

    name: str
    writes_input: bool = True

    @property
    def _step(self) -> PythonStep:
        return PythonStep(
            name=self.name,
            step="train-mlip",
            needs=(
                "train",
                "level",
                "species",
                "min_dist",
                "max_dist",
                "radial_basis_size",
                "iterations",
                "seed",
                "settings",
            ),
            writes=("pot.mtp", "active.npz"),
        )

    def prepare(self, work: Work) -> Command:
        """Write task.json and say what to start.

        Raises:
            InputError: the spec has not all it needs.
            StorageError: the disk refuses.
        """
        spec = {**work.spec, "dialect": self.name, "ranks": work.resources.ranks}
        return self._step.prepare(dataclasses.replace(work, spec=spec))

    def judge(self, work: Work, end: Exit) -> Judgement:
        """By result.json, which appears whole and last, and the way the process ended."""
        judgement = self._step.judge(work, end)
        if judgement.verdict is Verdict.CRASHED and _KILLED in judgement.reason:
            return Judgement(Verdict.OUT_OF_MEMORY, f"{judgement.reason}: most likely for its memory", judgement.facts)
        return judgement

    def stop_softly(self, work: Work) -> bool:  # noqa: ARG002
        """It has no way to stop and go on."""
        return False

    def soften(self, spec: Json, verdict: Verdict, tries: int, reason: str) -> Json | None:  # noqa: ARG002
        """There is no gentler way to do it."""
        return None

    def find(self, settings: Json) -> Finding:
        """Whether ``mlp`` is there, and which."""
        command = argv_of(str(settings.get("command", "mlp")))
        what = f"train ({self.name})"
        cure = "build MLIP and put `mlp` on the PATH (module load?), or give its path as train.mlip.command"
        place = locate(command[-1])
        if place is None:
            return Finding(what, f"{command[-1]} is not on the PATH", ok=False, cure=cure)
        version = first_match((*command, "list"), _VERSION, env={}, timeout_s=_VERSION_TIMEOUT_S)
        if version is None and self.name == MLIP_3:
            return Finding(what, f"{place} is there, but does not answer as MLIP-3's mlp does", ok=False, cure=cure)
        return Finding(what, f"{place}" if version is None else f"{place}, {version}", ok=True)


ENGINE = MlipTraining(MLIP_3)
