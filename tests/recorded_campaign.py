"""A campaign as it would have been recorded, made through the functions of db: nothing was run for it."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from folders import make_folder
from sqlalchemy import Connection

from db import attempt_table, dataset, pilot_table, room, task_table
from db.dataset import Candidate
from db.engine import open_writer
from db.records import Attempt, Label, NewTask, Resources, Share, Structure, Transition
from db.states import Event, PilotState, TaskKind, TaskState, Verdict
from pilot.folder import Folder
from pilot.packing import archive

BEGAN = 1_790_000_000.0
_EDGES = np.logspace(-2.0, 4.0, 61)
_SETTINGS = "ase-0123456789ab"

CONFIG = """
[campaign]
name = "{name}"
species = ["Pb"]
[crystal]
structure = "fcc"
a = 5.0
{stages}
[label]
engine = "ase"
[label.ase]
calculator = "ase.calculators.emt.EMT"
[train]
level = 18
min_dist = 2.2
max_dist = 6.0
[questions]
sample = 20
[validation]
elastic = true
[converge]
lattice_parameter = 0.01
"""
_STAGE = """[[stages]]
repeat = [{repeat}]
temperatures = [300, 600]
pressures = [1]
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a campaign is to be."""

    generations: Sequence[int] = (4, 3)
    labels: int = 6
    explorations: int = 2
    nodes: int = 2
    cores: int = 16
    allocations: int = 2
    sampled: int = 10
    parity: int = 30


@dataclass(slots=True)
class _Book:
    """What is written down on the way."""

    connection: Connection
    folder: Folder
    rng: np.random.Generator
    size: Size
    now: float = BEGAN
    attempt: int = 0
    free: list[float] = field(default_factory=list)
    pilot: int = 0


def record_campaign(root: Path, size: Size = Size(), *, name: str = "recorded", packed: bool = True) -> Folder:
    """Make the folder; its copy of the database is published, and no pilot lives."""
    stages = "".join(_STAGE.format(repeat=f"1, {k // 2 + 1}, {(k + 1) // 2 + 1}") for k in range(len(size.generations)))
    folder = make_folder(root, CONFIG.format(name=name, stages=stages))
    writer = open_writer(folder.database)
    with writer.transaction() as connection:
        book = _Book(connection, folder, np.random.default_rng(5), size)
        book.free = [BEGAN] * size.nodes * (size.cores // 4)
        whole = sum(size.generations) + 1
        turn = 0
        for stage, generations in enumerate(size.generations):
            for number in range(0 if stage == 0 else 1, generations + 1):
                if turn * size.allocations // whole >= book.pilot:
                    _change_pilot(book)
                _generation(book, stage, number, turn / whole, last=number == generations)
                turn += 1
        _end_pilot(book)
        if packed:
            _pack(connection, folder)
    writer.publish_copy(folder.copy)
    writer.close()
    return folder


def _change_pilot(book: _Book) -> None:
    if book.pilot:
        _end_pilot(book)
        book.now += 40_000.0
    book.pilot = pilot_table.begin_pilot(book.connection, host="node001", pid=7, job_id="4711", at=book.now)
    book.free = [book.now] * len(book.free)


def _end_pilot(book: _Book) -> None:
    book.now = max(book.now, *book.free)
    nodes = {f"node{k + 1:03d}": book.size.cores for k in range(book.size.nodes)}
    (mine,) = pilot_table.read_pilots(book.connection, 1)
    held = (book.now - mine["started_at"]) * book.size.nodes * book.size.cores
    pilot_table.record_seen(book.connection, book.pilot, at=book.now, nodes=nodes, reserved_core_s=held)
    pilot_table.change_pilot(book.connection, book.pilot, PilotState.ENDED, at=book.now, reason="the allocation ends")


def _generation(book: _Book, stage: int, number: int, progress: float, *, last: bool) -> None:
    connection, size, rng = book.connection, book.size, book.rng
    generation = dataset.add_generation(connection, stage, number, book.now)
    cell = _structure(2 ** (stage + 1), rng)
    if number:
        broke = [not last and rng.random() < 0.7 for _ in range(size.explorations)]
        runs = [_explored(progress, rng, one) for one in broke]
        tasks = [
            _task(
                TaskKind.EXPLORE, f"explore {300 + 300 * (k % 2)} K", f"s{stage}g{number}-explore-{k}", generation, cell
            )
            for k in range(size.explorations)
        ]
        done = _run(book, tasks, 400.0, runs)
        for attempt, facts in zip(done, runs, strict=True):
            _leave(book.folder, attempt, "gamma.json", json.dumps(_histogram(facts, rng)).encode())
        _run(book, [_task(TaskKind.SELECT, "select", f"s{stage}g{number}-select", generation)], 30.0, [{}])
        sweep = {"wanted": len(runs), "done": len(runs), "broke": sum(broke), "selected": size.labels}
        dataset.note_generation(connection, generation, {"sweep": sweep}, at=book.now)
    _labels(book, generation, f"s{stage + 1}g{number:02d}", len(cell.numbers))
    if number:
        _ask(book, stage, number, generation, progress)
    fitted = {"configurations": 20 + size.labels * number, "train": _errors(progress, rng, 0.7), "seconds": 300.0}
    train = _task(TaskKind.TRAIN, "train level 18", f"s{stage}g{number}-train", generation)
    (attempt,) = _run(book, [train], 300.0, [fitted])
    path = book.folder.potential(stage, number)
    dataset.add_potential(connection, generation, path, attempt_id=attempt.id, facts={}, at=book.now)
    evaluation = _evaluation(progress, rng)
    evaluate = _task(TaskKind.EVALUATE, "evaluate", f"s{stage}g{number}-evaluate", generation)
    (attempt,) = _run(book, [evaluate], 60.0, [evaluation])
    if last:
        _leave(book.folder, attempt, "parity.npz", _parity(size.parity, progress, rng))
    stages = len(size.generations)
    turn = "same stage" if not last else "converged" if stage == stages - 1 else "next stage"
    why = f"stage {stage + 1} has converged: 1 full sweep under γ_break" if last else "1 of 2 explorations broke"
    facts = {"train": fitted, "evaluation": evaluation} | ({"why": why} if number else {})
    dataset.note_generation(connection, generation, facts, outcome=turn if number else None, at=book.now)


def _task(kind: TaskKind, name: str, key: str, generation: int | None, structure: Structure | None = None) -> NewTask:
    cores = 4 if kind is TaskKind.LABEL else 8 if kind is TaskKind.TRAIN else 1
    spec: dict[str, Any] = {} if structure is None else {"structure": structure.to_json()}
    if kind is TaskKind.LABEL:
        spec["settings"] = {"calculator": "ase.calculators.emt.EMT", "arguments": {}}
    size = 0 if structure is None else len(structure.numbers)
    engine = "ase" if kind is TaskKind.LABEL else str(kind)
    return NewTask(kind, engine, name, spec, key=key, size=size, generation=generation, resources=Resources(cores))


def _run(book: _Book, new: list[NewTask], seconds: float, facts: Sequence[dict[str, Any]]) -> list[Attempt]:
    """Insert tasks and let them have run, each where a lane of four cores is free first; some fail once before."""
    tasks, _ = task_table.insert_tasks(book.connection, new, book.now)
    transitions, started, done = [], [], []
    before = book.now
    for task, fact in zip(tasks, facts, strict=True):
        retry = task.kind is TaskKind.LABEL and book.rng.random() < 0.06
        for number in range(2 if retry else 1):
            width = max(1, task.resources.cores // 4)
            lane = min(range(0, len(book.free) - width + 1, width), key=lambda k: max(book.free[k : k + width]))
            begin = max(before, *book.free[lane : lane + width])
            wall = seconds * float(book.rng.lognormal(0.0, 0.25)) * (1.0 + 0.05 * task.size)
            book.free[lane : lane + width] = [begin + wall] * width
            lost = retry and not number
            node, first = divmod(lane, book.size.cores // 4)
            book.attempt += 1
            attempt = Attempt(
                id=book.attempt,
                task_id=task.id,
                pilot_id=book.pilot,
                number=number + 1,
                node=f"node{node + 1:03d}",
                cores=tuple(range(4 * first, 4 * first + task.resources.cores)),
                gpus=(),
                directory=book.folder.attempt(book.attempt),
                started_at=begin,
                others=(Share("node002", (0, 1)),) if book.attempt % 997 == 0 and book.size.nodes > 1 else (),
                ended_at=begin + wall,
                verdict=Verdict.NOT_CONVERGED if lost else Verdict.DONE,
                reason="the SCF has not converged in 100 steps" if lost else "",
                wall_s=wall,
                cpu_s=wall,
                facts={} if lost else fact,
            )
            started.append(attempt)
            done += [] if lost else [attempt]
            way = (Event.RETRIED, TaskState.READY) if lost else (Event.SUCCEEDED, TaskState.DONE)
            transitions.append(Transition(task.id, Event.STARTED, TaskState.READY, TaskState.RUNNING))
            transitions.append(Transition(task.id, way[0], TaskState.RUNNING, way[1]))
    # a task has one running attempt at a time
    for number in (1, 2):
        some = [attempt for attempt in started if attempt.number == number]
        attempt_table.record_starts(book.connection, some)
        attempt_table.record_ends(book.connection, some)
    task_table.record_transitions(book.connection, transitions, book.now, book.pilot)
    book.now = max((attempt.ended_at or 0.0 for attempt in done), default=book.now)
    return done


def _labels(book: _Book, generation: int, name: str, atoms: int, role: str = "train", count: int = 0) -> None:
    structures = [_structure(atoms, book.rng) for _ in range(count or book.size.labels)]
    candidates = [Candidate(one, role, f"{name} #{k}", grade=2.5) for k, one in enumerate(structures)]
    dataset.add_structures(book.connection, candidates, generation)
    tasks = [
        _task(
            TaskKind.LABEL,
            f"label {name} #{k}",
            f"label-{one.content_hash()}-{_SETTINGS}",
            generation if role == "train" else None,
            one,
        )
        for k, one in enumerate(structures)
    ]
    for structure, attempt in zip(structures, _run(book, tasks, 90.0, [{}] * len(tasks)), strict=True):
        label = Label(-3.0 * atoms, tuple((0.0, 0.0, 0.0) for _ in range(atoms)))
        dataset.add_label(
            book.connection,
            structure.content_hash(),
            label,
            settings=_SETTINGS,
            attempt_id=attempt.id,
            at=book.now,
            provenance={"engine": "ase", "version": "3.29"},
        )


def _ask(book: _Book, stage: int, number: int, generation: int, progress: float) -> None:
    """The comparison of γ and errors of a sample."""
    key = f"s{stage}g{number}-questions"
    facts = {"sample": _errors(progress, book.rng, 1.8)}
    (attempt,) = _run(book, [_task(TaskKind.EVALUATE, "compare γ and error", key, generation)], 30.0, [facts])
    gamma = np.exp(book.rng.uniform(math.log(0.1), math.log(10.0), book.size.sampled))
    noise = book.rng.lognormal(0.0, 0.35, (2, book.size.sampled))
    arrays = {
        "sample_gamma": gamma,
        "sample_eps_F": 0.02 * gamma**0.7 * noise[0],
        "sample_eps_E": 0.004 * gamma**0.3 * noise[1] ** 2,
        "sample_atoms": np.full(book.size.sampled, 4),
    }
    _leave(book.folder, attempt, "parity.npz", _npz(arrays))


def _structure(atoms: int, rng: np.random.Generator) -> Structure:
    rows = [tuple(row) for row in np.round(rng.uniform(0.0, 8.0, (atoms, 3)), 5).tolist()]
    cell = ((8.0, 0.0, 0.0), (0.0, 8.0, 0.0), (0.0, 0.0, 8.0))
    return Structure((82,) * atoms, tuple((x, y, z) for x, y, z in rows), cell)


def _explored(progress: float, rng: np.random.Generator, broke: bool) -> dict[str, Any]:
    mean = 1.1 - 0.6 * progress + float(rng.normal(0.0, 0.05))
    steps = int(rng.uniform(0.05, 0.3 + 0.6 * progress) * 50_000) if broke else 50_000
    highest = 10.0 + float(rng.exponential(4.0)) if broke else float(rng.uniform(3.0, 9.5))
    return {
        "steps": steps,
        "steps_wanted": 50_000,
        "broke": broke,
        "gamma_max": highest,
        "gamma_mean": mean,
        "gamma_std": 0.5 * mean,
    }


def _histogram(facts: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    gamma = facts["gamma_mean"] * rng.lognormal(0.0, 0.45, 4000)
    counts, _ = np.histogram(np.append(np.minimum(gamma, facts["gamma_max"]), facts["gamma_max"]), _EDGES)
    return {"edges": [float(f"{edge:.6g}") for edge in _EDGES], "counts": counts.tolist()}


def _errors(progress: float, rng: np.random.Generator, scale: float) -> dict[str, Any]:
    force = scale * 0.08 * math.exp(-2.0 * progress) * float(rng.lognormal(0.0, 0.08))
    energy = scale * 0.006 * math.exp(-2.5 * progress) * float(rng.lognormal(0.0, 0.12))
    return {"n": 10, "eps_F": force, "eps_E": 4 * energy, "eps_E_per_atom": energy, "rmse_energy_per_atom": energy}


def _evaluation(progress: float, rng: np.random.Generator) -> dict[str, Any]:
    volumes = np.linspace(27.0, 35.0, 7)
    theirs = 0.02 * (volumes - 30.5) ** 2 / 4.0
    mine = theirs + 0.004 * (1.0 - progress) * (volumes - 29.0)
    return {
        "holdout": _errors(progress, rng, 1.0),
        "lattice_parameter": 4.96 + 0.08 * math.exp(-5.0 * progress) + float(rng.normal(0.0, 0.002)),
        "lattice_parameter_dft": 4.96,
        "eos": {"volumes": volumes.tolist(), "energies": mine.tolist(), "energies_dft": theirs.tolist()},
        "elastic": {"C11": 48.1, "C12": 40.2, "C44": 15.3},
        "elastic_dft": {"C11": 49.6, "C12": 42.0, "C44": 14.8},
        "elastic_at_reference": {"C11": 48.8, "C12": 41.0, "C44": 15.0},
        "error_bars": {"eps_F": 0.004, "eps_E_per_atom": 0.0003, "lattice_parameter": 0.004, "C11": 1.1},
    }


def _parity(count: int, progress: float, rng: np.random.Generator) -> bytes:
    arrays: dict[str, Any] = {}
    for name, many, spread in (("train", count, 1.0), ("holdout", 10, 1.3), ("test", 12, 1.6), ("sample", 20, 2.0)):
        energy = rng.normal(-3.5, 0.03, many)
        force = rng.normal(0.0, 0.6, many * 6)
        arrays[f"{name}_energy"] = np.column_stack([energy, energy + rng.normal(0.0, 0.001 * spread, many)])
        arrays[f"{name}_forces"] = np.column_stack([force, force + rng.normal(0.0, 0.02 * spread, many * 6)])
    return _npz(arrays)


def _npz(arrays: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _leave(folder: Folder, attempt: Attempt, name: str, content: bytes) -> None:
    place = folder.root / attempt.directory
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)


def _pack(connection: Connection, folder: Folder) -> None:
    """Pack half of the folders that are there."""
    folders = sorted(path for path in folder.runs.glob("*/*") if path.is_dir() and path.parent.name != "packed")
    folder.packed.mkdir(exist_ok=True)
    chosen = {path.name: path for path in folders[: len(folders) // 2]}
    archive.write(folder.packed / "s1g00.zip", chosen, lambda: False)
    for path in chosen.values():
        archive.remove(path)
    room.record_packed(connection, "runs/packed/s1g00.zip", 1, [int(name) for name in chosen])
