"""pilot.toml as a whole: reading it, and what to say when something in it is wrong."""

import difflib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from db.errors import InputError, MissingError
from pilot.contradictions import contradictions
from pilot.label_tables import LabelTable
from pilot.run_tables import ResourcesTables, RetriesTable, RunTable
from pilot.stage_tables import ExploreTable, SelectTable, StageTable
from pilot.tables import CampaignTable, CrystalTable, InitialTable, Table
from pilot.train_tables import ConvergeTable, QuestionsTable, StudyTable, TrainTable, ValidationTable

_SHOWN = 200


class Config(Table):
    """All of pilot.toml. A folder without [campaign] runs what `pilot add` puts in."""

    campaign: CampaignTable | None = None
    crystal: CrystalTable | None = None
    initial: InitialTable = InitialTable()
    stages: list[StageTable] = Field(default_factory=list)
    explore: ExploreTable = ExploreTable()
    select: SelectTable = SelectTable()
    label: LabelTable | None = None
    train: TrainTable | None = None
    validation: ValidationTable = ValidationTable()
    converge: ConvergeTable = ConvergeTable()
    questions: QuestionsTable = QuestionsTable()
    study: StudyTable | None = None
    resources: ResourcesTables = ResourcesTables()
    retries: RetriesTable = RetriesTable()
    run: RunTable = RunTable()

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.campaign is None:
            return self
        absent = [f"[{name}]" for name in ("crystal", "label", "train") if getattr(self, name) is None]
        if not (self.stages or self.study):
            absent.append("[[stages]] (or [study])")
        if absent:
            raise ValueError(f"a campaign also needs {', '.join(absent)}")
        for number, stage in enumerate(self.stages, 1):
            try:
                self.explore.of_stage(stage)
            except ValidationError as error:
                raise ValueError(f"stage {number}: {_plain(error.errors()[0]['msg'])}") from error
            if self.label is not None and stage.fidelity is not None and stage.fidelity not in self.label.fidelity:
                raise ValueError(f"stage {number}: there is no table [label.fidelity.{stage.fidelity}]")
        said = list(contradictions(self))
        if said:
            raise ValueError("; ".join(said))
        return self

    def wishing(self, **wishes: Any) -> "Config":
        """The same with other values in [run]; a wish that is None is none."""
        wanted = {key: value for key, value in wishes.items() if value is not None}
        return self.model_copy(update={"run": self.run.model_copy(update=wanted)})


def read_config(path: Path) -> Config:
    """Read pilot.toml.

    Raises:
        MissingError: there is none.
        InputError: it is not TOML, has an unknown key, or a value that cannot be.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingError("there is no pilot.toml", where=str(path), next_step="`pilot init FOLDER`") from error
    except OSError as error:
        raise InputError(
            f"pilot.toml cannot be read: {error.strerror}", where=str(path), next_step=f"ls -l {shlex.quote(str(path))}"
        ) from error
    # a ValueError: bytes that are no text, or a number of thousands of digits
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not valid TOML: {error}", where=str(path), next_step="mend that line") from error
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise _explain(error, path) from error


def _explain(error: ValidationError, path: Path) -> InputError:
    """The first mistakes, each with its key, and the nearest key where one is unknown."""
    told: list[str] = []
    for mistake in error.errors()[:5]:
        key = _key(mistake["loc"])
        if mistake["type"] == "extra_forbidden":
            told.append(f"unknown key `{key}`{_nearest(mistake['loc'])}")
        elif mistake["type"] == "missing":
            told.append(f"`{key}` is missing")
        else:
            said = _plain(mistake["msg"])
            shown = mistake["input"] if isinstance(mistake["input"], str | int | float | list) else None
            told.append(f"`{key or 'pilot.toml'}`: {said}" + (f" (it is {_shown(shown)})" if shown is not None else ""))
    return InputError(
        "; ".join(told),
        where=str(path),
        next_step="mend it and check with `pilot doctor`; docs/reference/pilot-toml.md explains each key",
    )


def _plain(said: str) -> str:
    return re.sub(r"^Value error, ", "", said)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits, as hexadecimal ones may be
        text = "a number without end"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _key(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _nearest(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] | None = Config
    for part in location[:-1]:
        if isinstance(part, str) and model is not None:
            model = table_of(model.model_fields.get(part))
    if model is None:
        return ""
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known here: {', '.join(model.model_fields)}"


def table_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The table that a key holds, through `| None` and lists; None for a plain value."""
    if field is None:
        return None
    waiting: list[Any] = [field.annotation]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        waiting += getattr(kind, "__args__", ())
    return None
