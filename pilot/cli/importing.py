"""Making requests out of the files that were named for `pilot import`: read, checked, sent in parts."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from db import dataset
from db.dataset import Brought, Known
from db.errors import InputError, MissingError
from db.states import Role
from pilot.campaign import importing
from pilot.campaign.from_config import protocol_of
from pilot.campaign.protocol import Protocol
from pilot.cli.asking import ask
from pilot.cli.import_checks import contradictions, say_of
from pilot.cli.import_files import files_of
from pilot.cli.import_reading import Tally, Wanted, name_of, read_file, shifts_of
from pilot.cli.output import note, plural, say
from pilot.cli.presence import look
from pilot.cli.records import published
from pilot.config import read_config
from pilot.folder import Folder
from tasks.formats.frames import Telling
from tasks.formats.labelled_files import tell

#: what a living pilot applies in one transaction, so that its loop is not held up; and where none is alive
_PART, _PART_ALONE = 250, 4000
_PART_BYTES = 8_000_000
#: so many of a kind are told one by one
_TOLD = 20


def bring(folder: Folder, wanted: Wanted) -> int:
    """Do it, and say what was done. Returns 1 if something was refused or in conflict, else 0.

    Raises:
        InputError: an option, or the settings are not said, or contradict what a file says, or a species is unknown.
        MissingError: a file is not there.
        RefusedError: the pilot refuses.
    """
    protocol = protocol_of(read_config(folder.config), folder)
    if protocol is None:
        raise importing.no_campaign()
    role, shifts = _role(wanted.role), shifts_of(wanted.shift, protocol.campaign.species)
    files, left_out = files_of(wanted.files, wanted.glob)
    if left_out:
        note(f"{plural(left_out, 'file')} left out that tell of the same runs as others beside them")
    tally = Tally()
    tellings = _tellings(folder, files)
    stage = _stage(folder)
    _demand_settings(folder, wanted, protocol, tellings, stage)
    folder.make()
    # names of it are of no use to anybody: it is gone with this process, however that ends
    with tempfile.TemporaryFile("w+", dir=folder.state, encoding="utf-8") as spool:
        for path in files:
            if wanted.limit is not None and tally.read >= wanted.limit:
                break
            read_file(folder, path, wanted, protocol, shifts, tellings.get(path, Telling()), tally, spool)
        importing.refuse_strangers(protocol, tally.species)
        spool.seek(0)
        send = _compare if wanted.dry_run else _send
        send(folder, protocol, wanted, role, tellings, spool, tally)
    _report(wanted, tally)
    return 1 if tally.refused or tally.conflict_count else 0


def _role(text: str) -> Role:
    if text not in importing.ROLES:
        raise InputError(f"labels cannot be imported as {text!r}", where="--role", next_step="train, holdout or test")
    return Role(text)


def _tellings(folder: Folder, files: Iterable[Path]) -> dict[Path, Telling]:
    """What the files say of themselves; printed, each saying once."""
    found: dict[Path, Telling] = {}
    groups: dict[str, list[Path]] = {}
    for path in files:
        try:
            found[path] = tell(path)
        except InputError:
            # it will be refused when it is read
            continue
        if found[path].engine:
            groups.setdefault(say_of(found[path]), []).append(path)
    for said, paths in groups.items():
        say(f"{_files(folder, paths)}: {said}")
    return found


def _files(folder: Folder, paths: Sequence[Path]) -> str:
    others = f" and {plural(len(paths) - 1, 'other')}" if len(paths) > 1 else ""
    return f"{name_of(folder, paths[0])}{others}"


def _demand_settings(
    folder: Folder, wanted: Wanted, protocol: Protocol, tellings: Mapping[Path, Telling], stage: int
) -> None:
    if wanted.settings is None:
        typed = " ".join(str(path) for path in wanted.files)
        raise InputError(
            "with which settings were these labels computed? Those of other settings do not mix with this campaign's",
            where=f"[label] in {folder.config}",
            next_step=f"`pilot import {typed} --settings this` if they are those of [label]; "
            f"`pilot import {typed} --settings NAME` to keep them apart",
        )
    _, record = importing.settings_name(protocol, wanted.settings, stage)
    if record is None:
        return
    found: dict[str, list[Path]] = {}
    for path, telling in tellings.items():
        for text in contradictions(protocol, record["table"], telling):
            found.setdefault(text, []).append(path)
    wrong = [f"{text} ({_files(folder, paths)})" for text, paths in found.items()]
    if wrong and wanted.force:
        note(f"imported all the same (--force), though {_first(wrong)}")
    elif wrong:
        raise InputError(
            f"these labels were not computed with the settings of [label]: {_first(wrong)}",
            where=str(folder.config),
            next_step="mend [label]; or --settings NAME keeps them apart; or --force imports them all the same",
        )


def _first(texts: list[str]) -> str:
    more = f"; and {len(texts) - 3} more" if len(texts) > 3 else ""
    return "; ".join(texts[:3]) + more


def _stage(folder: Folder) -> int:
    try:
        with published(folder) as connection:
            return importing.present_stage(connection)
    except MissingError:
        return 0


def _parts(spool: IO[str], size: int) -> Iterator[list[str]]:
    part: list[str] = []
    length = 0
    for line in spool:
        if part and (len(part) >= size or length + len(line) > _PART_BYTES):
            yield part
            part, length = [], 0
        part.append(line)
        length += len(line)
    if part:
        yield part


def _send(
    folder: Folder,
    protocol: Protocol,  # noqa: ARG001
    wanted: Wanted,
    role: Role,
    tellings: Mapping[Path, Telling],
    spool: IO[str],
    tally: Tally,
) -> None:
    told = sorted({say_of(telling) for telling in tellings.values() if telling.engine})
    for part in _parts(spool, _PART if look(folder).alive else _PART_ALONE):
        items = [json.loads(line) for line in part]
        given = {"role": str(role), "settings": wanted.settings, "told": told, "items": items}
        answer = ask(folder, "import", given)
        if answer is None:
            tally.unanswered += len(part)
            continue
        _count(tally, answer)


def _compare(
    folder: Folder,
    protocol: Protocol,
    wanted: Wanted,
    role: Role,
    tellings: Mapping[Path, Telling],  # noqa: ARG001
    spool: IO[str],
    tally: Tally,
) -> None:
    """What would be done, as far as the published copy of the database tells."""
    settings, _ = importing.settings_name(protocol, wanted.settings or "", _stage(folder))
    here: dict[str, Brought] = {}
    for part in _parts(spool, _PART_ALONE):
        brought = [importing.brought_of(json.loads(line), role) for line in part]
        found = importing.sort_out(_known(folder, brought), brought, settings, here)
        counts = {"added": len(found.new), "duplicates": found.duplicates, "conflicts": len(found.conflicts)}
        _count(tally, counts | {"told": found.conflicts, "elsewhere": found.elsewhere})


def _known(folder: Folder, brought: Sequence[Brought]) -> Mapping[str, Known]:
    try:
        with published(folder) as connection:
            return dataset.find_known(connection, {entry.hash for entry in brought})
    except MissingError:
        return {}


def _count(tally: Tally, answer: Mapping[str, Any]) -> None:
    tally.added += int(answer["added"])
    tally.duplicates += int(answer["duplicates"])
    tally.conflict_count += int(answer["conflicts"])
    tally.conflicts += list(answer["told"])
    tally.elsewhere += int(answer["elsewhere"])


def _report(wanted: Wanted, tally: Tally) -> None:
    for what, texts, number in (
        ("refused", tally.refused, len(tally.refused)),
        ("conflict", tally.conflicts, tally.conflict_count),
    ):
        for text in texts[:_TOLD]:
            say(f"{what}: {text}")
        if number > _TOLD:
            say(f"{what}: and {number - _TOLD} more")
    if "energy" in tally.energies:
        note("some files have no free energy: their `energy` was taken; it must be the one the forces belong to")
    if tally.alike:
        note(f"{plural(tally.alike, 'configuration')} equal to others but for a shift or the order of atoms; kept")
    if tally.elsewhere:
        note(f"{tally.elsewhere} are of structures that are here in another role, and keep that")
    if tally.unanswered:
        note(f"{tally.unanswered} lie in the inbox: the pilot has not answered yet, and will add them once")
    added = "would be added" if wanted.dry_run else "added"
    say(
        f"read {tally.read}, {added} {tally.added}, duplicates {tally.duplicates}, "
        f"conflicts {tally.conflict_count}, refused {len(tally.refused)}"
    )
