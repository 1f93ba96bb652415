"""The steps of a campaign without their computing time: what a step has once written is written again.

A real process does it, in the attempt's own folder, with a result.json that names the attempt. What is replayed is
found by *all that goes into the step*: the engine, the spec, the content of every file that the spec names. So a pilot
that hands out a wrong or torn input gets no kept result: the real step runs, and what it makes is compared.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from db.records import Json
from pilot.agent.agent import Agent
from tasks.protocol import Command, Engine, Exit, Judgement, Work

#: lists, beside the store, the steps of which nothing was kept
MISSES = "computed"
_KEPT = "key"
_SCRIPT = """cp -R {kept}/files/. . && sed 's/"attempt_id": [0-9]*/"attempt_id": {attempt_id}/' {kept}/result.json \
> .result.json.new && mv .result.json.new result.json"""


class Replayed:
    """An engine whose results are kept in ``store``."""

    def __init__(self, engine: Engine, store: Path) -> None:
        self._engine = engine
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, work: Work) -> Command:
        """As the engine, but for the program where there is something to replay."""
        command = self._engine.prepare(work)
        if self._engine.name == "command":
            return command
        kept = self._store / _key(self._engine.name, work)
        if not kept.exists():
            (work.directory / _KEPT).write_text(kept.name)
            with self._store.with_name(MISSES).open("a") as file:
                file.write(f"{self._engine.name} {kept.name}\n")
            return command
        return Command(("/bin/sh", "-c", _SCRIPT.format(kept=kept, attempt_id=work.attempt_id)))

    def judge(self, work: Work, end: Exit) -> Judgement:
        """As the engine."""
        return self._engine.judge(work, end)


def replay_from(store: Path) -> None:
    """From now on agents in this process use what is kept in ``store``."""
    make = Agent.__init__

    def patched(self: Agent, settings: Any, engine_of: Any, *args: Any, **kwargs: Any) -> None:
        make(self, settings, lambda name: Replayed(engine_of(name), store), *args, **kwargs)

    Agent.__init__ = patched  # type: ignore[method-assign]


def keep_results(root: Path, store: Path) -> int:
    """Keep what the attempts of a finished run have written; how many there are now."""
    for note in root.glob(f"runs/*/*/{_KEPT}"):
        kept = store / note.read_text()
        if kept.exists() or not (note.parent / "result.json").exists():
            continue
        shutil.copytree(
            note.parent, kept / "files", ignore=shutil.ignore_patterns("task.json", "result.json", _KEPT, "std*")
        )
        shutil.copy(note.parent / "result.json", kept / "result.json")
    return sum(1 for _ in store.iterdir())


def _key(name: str, work: Work) -> str:
    content = json.dumps([name, _content(work.root, work.spec)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _content(root: Path, value: Json | Any) -> Any:
    """The same with the content of a file in place of its name."""
    if isinstance(value, dict):
        return {key: _content(root, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_content(root, item) for item in value]
    if isinstance(value, str) and 0 < len(value) < 200 and (root / value).is_file():
        return hashlib.sha256((root / value).read_bytes()).hexdigest()
    return value
