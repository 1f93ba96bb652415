"""What our own processes write for each other, half written or forged: read as it was, or refused in words."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

import json
import math
from pathlib import Path
from typing import Any

import pytest
from folders import make_folder
from hostile import damaged, fuzzed, place, truncations
from hypothesis import given
from hypothesis import strategies as st

from db.errors import PilotError
from db.states import Verdict
from pilot import mailbox
from pilot.agent.journal import read_ends
from pilot.agent.messages import AgentSettings
from pilot.orders import from_line
from pilot.ranks.plan import Plan, read_plan
from pilot.slurm.allocation import NodeGrant
from tasks.engines.python_step import PythonStep
from tasks.protocol import Cause, Exit, Work

ID = "1763720000.000000-0123abcd"
REQUEST = json.dumps({"id": ID, "verb": "cancel", "at": 1.5, "arguments": {"tasks": [1, 2.5]}}).encode()
END = {
    "ev": "ended",
    "id": 7,
    "code": 0,
    "signal": None,
    "cause": None,
    "wall_s": 1.5,
    "cpu_s": 1.25,
    "peak_mb": 10.0,
    "message": "",
}
JOURNAL = b"".join(json.dumps(END | {"id": k, "wall_s": k + 0.5}).encode() + b"\n" for k in (7, 8, 9))
PLAN = Plan("ab12", AgentSettings("/x", "c", 3, ("-v",)), {"n1": NodeGrant("n1", 8, 8000, (0, 1))}, starts_at=1.0)


def finite(value: Any) -> bool:
    """Whether no number in it is infinite or none."""
    if isinstance(value, dict):
        return all(finite(v) for v in value.values())
    if isinstance(value, list):
        return all(finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


@fuzzed
@given(damaged(REQUEST))
def test_a_damaged_request_is_put_aside_or_can_be_applied(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = make_folder(place(tmp_path_factory) / "requests")
    path = folder.inbox / f"{ID}.json"
    path.write_bytes(data)
    requests, strangers = mailbox.waiting_requests(folder)
    assert len(requests) + len(strangers) == 1
    for request in requests:
        assert request.id == ID
        assert finite(dict(request.arguments))
        # both go into the database and the log
        assert request.verb.isascii()
        assert request.verb.isprintable()
    for stranger in strangers:
        assert mailbox.refuse(stranger)


def test_a_cut_request_is_put_aside(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for data in truncations(REQUEST):
        (folder.inbox / f"{ID}.json").write_bytes(data)
        assert mailbox.waiting_requests(folder) == ([], [folder.inbox / f"{ID}.json"])


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "x" * 101, "²"])
def test_ids_that_would_harm_the_database_or_the_log_are_none(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path)
    path = folder.inbox / f"{name}.json"
    path.write_text(json.dumps({"id": name, "verb": "drain", "arguments": {}}))
    assert mailbox.waiting_requests(folder) == ([], [path])


@fuzzed
@given(damaged(JOURNAL))
def test_a_damaged_journal_tells_whole_ends_only(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = place(tmp_path_factory) / "3.n1.jsonl"
    path.write_bytes(data)
    for attempt_id, end in read_ends(path).items():
        assert type(attempt_id) is int
        assert end.code is None or type(end.code) is int
        assert all(math.isfinite(value) for value in (end.wall_s, end.cpu_s, end.peak_mb))


def test_a_cut_journal_tells_the_ends_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "3.n1.jsonl"
    for data in truncations(JOURNAL):
        path.write_bytes(data)
        whole = data.count(b"}")
        assert list(read_ends(path)) == [7, 8, 9][:whole]


@fuzzed
@given(st.data())
def test_a_damaged_plan_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = make_folder(place(tmp_path_factory) / "plans")
    path = PLAN.write(folder)
    assert read_plan(path) == PLAN
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        read_plan(path)
    except PilotError as error:
        assert error.where == str(path)


def test_a_cut_plan_is_refused_in_words(tmp_path: Path) -> None:
    path = PLAN.write(make_folder(tmp_path))
    for data in truncations(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(PilotError):
            read_plan(path)


@fuzzed
@given(
    st.one_of(
        damaged(b'{"order": "DrainOrder", "why": "pilot drain", "urgency": "wish"}\n'),
        damaged(b'{"order": "EndOrder", "end": "slurm", "at": 1763720000.5}\n'),
        st.binary(),
    )
)
def test_a_damaged_order_is_none(line: bytes) -> None:
    try:
        order = from_line(line)
    except (ValueError, KeyError):
        return
    except RecursionError:
        return
    assert math.isfinite(getattr(order, "at", None) or 0.0)


@fuzzed
@given(damaged(b'{"attempt_id": 7, "facts": {"configurations": 12, "train": {"eps_F": 0.0125}}}'))
def test_a_damaged_result_is_never_done(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = place(tmp_path_factory) / "steps"
    root.mkdir(exist_ok=True)
    (root / "result.json").write_bytes(data)
    work = Work(root, root, 7, {})
    step = PythonStep("motep", "train", needs=())
    for end in (Exit(0, None, None, 1.0, 1.0, 1.0, ""), Exit(None, 9, Cause.LOST, 1.0, 1.0, 1.0, "")):
        judgement = step.judge(work, end)
        if judgement.verdict is Verdict.DONE:
            assert json.loads(data)["attempt_id"] == 7
            assert isinstance(json.loads(data)["facts"], dict)
