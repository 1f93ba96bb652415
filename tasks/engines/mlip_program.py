"""``mlp``, the program of MLIP-3 and MLIP-2: its commands, each with the proof that it has done what it was asked.

Its exit code says little: it is 0 for an unknown command and for a wrong number of arguments, and 9 for whatever else
goes wrong. Several commands overwrite what they read unless they are told where to write; unknown options are ignored
without a word; the MPI build appends the rank to names of files. So every call here names what it writes, removes what
an earlier one may have left there, looks for the words with which the command ends, and counts the configurations.

Tried with MLIP-3. Of MLIP-2 only the spelling is known, from its help.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.engines.mlip_output import (
    NUMBER,
    USAGE,
    Errors,
    MlipError,
    Said,
    count_configurations,
    how_it_ended,
    outputs,
    read_report,
    run_logged,
)

MLIP_3, MLIP_2 = "mlip-3", "mlip-2"

#: our name of a command → MLIP-2's
_SECOND = {
    "calculate_efs": "calc-efs",
    "calculate_grade": "calc-grade",
    "check_errors": "calc-errors",
    "select_add": "select-add",
}
#: our name of an option → MLIP-2's; None: it has none and needs none
_SECOND_OPTIONS: Mapping[str, str | None] = {
    "save_to": "trained-pot-name",
    "energy_weight": "energy-weight",
    "force_weight": "force-weight",
    "stress_weight": "stress-weight",
    "iteration_limit": "max-iter",
    "no_mindist_update": None,
    "al_mode": None,
    "weight_scaling": None,
    "weight_scaling_forces": None,
}
_ADDED = re.compile(r"Training set was increased by (\d+) configurations")
_NEAREST = re.compile(rf"Global mindist: {NUMBER}")


@dataclass(frozen=True, slots=True)
class Mlp:
    """The program as it is called in one folder.

    Attributes:
        argv: the program, with a launcher before it if one is wanted.
        where: the folder in which it runs; names of files are relative to it.
        dialect: "mlip-3" or "mlip-2".
    """

    argv: tuple[str, ...]
    where: Path
    dialect: str = MLIP_3

    def _options(self, options: Mapping[str, str]) -> list[str]:
        if self.dialect == MLIP_3:
            return [f"--{name}={value}" for name, value in options.items()]
        renamed = {_SECOND_OPTIONS.get(name, name): value for name, value in options.items()}
        return [f"--{name}={value}" for name, value in renamed.items() if name is not None]

    def _run(
        self, command: str, *words: str, options: Mapping[str, str] | None = None, makes: str | None = None
    ) -> Said:
        """Run a command whose output is ``makes``, and refuse an ending that is none of a command.

        Raises:
            MlipError: it ended otherwise than with exit code 0, or the command or its arguments are not known to it.
            MissingError: there is no such program.
        """
        for old in outputs(self.where / makes) if makes else []:
            old.unlink()
        theirs = command if self.dialect == MLIP_3 else _SECOND.get(command, command)
        said = run_logged([*self.argv, theirs, *words, *self._options(options or {})], self.where, f"mlp-{command}")
        if said.code != 0 or USAGE.search(said.out):
            raise MlipError(f"mlp {theirs} failed: {how_it_ended(said)}")
        return said

    def _demand(self, command: str, said: Said, words: str) -> None:
        if words not in said.out:
            raise MlipError(f"mlp {command} ended with exit code 0, but it did not say {words!r}: {how_it_ended(said)}")

    def _counted(self, command: str, made: str, wanted: int) -> list[Path]:
        files = outputs(self.where / made)
        count = sum(count_configurations(file) for file in files)
        if count != wanted:
            raise MlipError(f"mlp {command} has written {count} configurations, {wanted} were wanted")
        return files

    def train(self, start: str, data: str, made: str, options: Mapping[str, str]) -> Said:
        """Fit to ``data`` from ``start``, which stays as it is; the trained potential is in the file ``made``.

        Whether that file is whole is for its reader to say: it is written during the fit, too.

        Raises:
            MlipError: it did not come to its end.
        """
        if made in {start, data}:
            raise MlipError(f"training would overwrite {made}")
        said = self._run("train", start, data, options={"save_to": made, **options}, makes=made)
        self._demand("train", said, "training complete" if self.dialect == MLIP_3 else "TRAIN ERRORS")
        if not (self.where / made).is_file():
            raise MlipError(f"mlp train has said that it was complete, but {made} is not there")
        return said

    def check_errors(self, potential: str, data: str) -> Errors:
        """The errors of a potential on labelled configurations.

        Raises:
            MlipError: there is no report, or it is about another number of configurations.
        """
        said = self._run("check_errors", potential, data)
        report = read_report(said.out)
        wanted = count_configurations(self.where / data)
        if report is None or report.configurations != wanted:
            raise MlipError(
                f"mlp check_errors reports on {report and report.configurations} of {wanted} configurations"
            )
        return report

    def calculate_efs(self, potential: str, data: str, made: str) -> list[Path]:
        """Energy, forces and stress of the configurations in ``data``, which stays as it is.

        Raises:
            MlipError: not all of them are in what was written.
        """
        if made == data:
            raise MlipError(f"calculate_efs would overwrite {data}")
        third = () if self.dialect == MLIP_3 else (made,)
        options = {"output_filename": made} if self.dialect == MLIP_3 else {}
        said = self._run("calculate_efs", potential, data, *third, options=options, makes=made)
        if self.dialect == MLIP_3:
            self._demand("calculate_efs", said, "EFS calculation complete")
        return self._counted("calculate_efs", made, count_configurations(self.where / data))

    def calculate_grade(self, potential: str, data: str, made: str, *, train: str = "", state: str = "") -> list[Path]:
        """γ of each configuration, as its feature MV_grade.

        Args:
            potential: with its active set (MLIP-3), or without (MLIP-2).
            data: the configurations.
            made: where they are written with γ.
            train: MLIP-2: the training set, of which it makes the active set.
            state: MLIP-2: where that is written.

        Raises:
            MlipError: not all of them are in what was written.
        """
        if self.dialect == MLIP_3:
            said = self._run("calculate_grade", potential, data, made, makes=made)
            self._demand("calculate_grade", said, "Grade evaluation complete")
        else:
            options = {"als-filename": state} if state else {}
            self._run("calculate_grade", potential, train, data, made, options=options, makes=made)
            if state and not (self.where / state).is_file():
                raise MlipError(f"mlp calc-grade has not written {state}")
        return self._counted("calculate_grade", made, count_configurations(self.where / data))

    def select(self, potential: str, data: str, made: str) -> None:
        """Give a potential an active set without touching its coefficients (MLIP-3; its help does not know it).

        Raises:
            MlipError: it is not there afterwards.
        """
        if made == potential:
            raise MlipError(f"select would overwrite {potential}")
        said = self._run("select", potential, data, options={"save_to": made}, makes=made)
        self._demand("select", said, "Selection: state saved")
        if not (self.where / made).is_file():
            raise MlipError(f"mlp select has not written {made}")

    def select_add(self, potential: str, train: str, candidates: str, made: str) -> list[Path]:
        """Of the candidates those that MaxVol adds to the training set.

        Raises:
            MlipError: it wrote another number of them than it says.
        """
        said = self._run("select_add", potential, train, candidates, made, makes=made)
        match = _ADDED.search(said.out)
        if self.dialect == MLIP_3 and match is None:
            raise MlipError(f"mlp select_add does not say how many it has added: {how_it_ended(said)}")
        wanted = int(match[1]) if match else sum(count_configurations(file) for file in outputs(self.where / made))
        return self._counted("select_add", made, wanted)

    def convert(self, data: str, made: str, input_format: str, *, at_least: int = 1) -> list[Path]:
        """Configurations from another program's output; from one that is cut short it makes none and says nothing.

        Raises:
            MlipError: fewer than ``at_least`` were made.
        """
        if made == data:
            raise MlipError(f"convert would overwrite {data}")
        dash = "_" if self.dialect == MLIP_3 else "-"
        self._run("convert", data, made, options={f"input{dash}format": input_format}, makes=made)
        files = outputs(self.where / made)
        count = sum(count_configurations(file) for file in files)
        if count < at_least:
            raise MlipError(f"mlp convert has made {count} configurations of {data}: it may be cut short")
        return files

    def nearest(self, data: str) -> float:
        """The shortest distance between two atoms in a file, Å; the file stays as it is (MLIP-3).

        Raises:
            MlipError: it does not say.
        """
        said = self._run("mindist", data, options={"no_overwrite": "true"})
        match = _NEAREST.search(said.out)
        if match is None:
            raise MlipError(f"mlp mindist does not say how near the atoms come: {how_it_ended(said)}")
        return float(match[1])
