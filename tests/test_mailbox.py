"""Requests: in order, whole, answered, of the owner only."""

import os
from pathlib import Path

import pytest
from folders import make_folder

from pilot import mailbox


def test_requests_come_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    posted = [mailbox.post(folder, "cancel", {"tasks": [number]}) for number in range(20)]
    assert mailbox.waiting_requests(folder) == (posted, [])


def test_an_answer_takes_the_request_out_and_is_fetched_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    request = mailbox.post(folder, "drain", {})
    assert mailbox.fetch_answer(folder, request) is None
    mailbox.answer(folder, request, {"ok": True})
    assert mailbox.waiting_requests(folder)[0] == []
    assert mailbox.fetch_answer(folder, request) == {"ok": True}
    assert mailbox.fetch_answer(folder, request) is None


def test_half_a_request_is_put_aside(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    path = folder.inbox / "1-x.json"
    path.write_text('{"id": "1-x", "verb": "dra')
    (folder.inbox / ".2-y.json.77.new").write_text("not yet renamed")
    assert mailbox.waiting_requests(folder) == ([], [path])
    mailbox.refuse(path)
    assert mailbox.waiting_requests(folder) == ([], [])
    assert path.with_suffix(".refused").read_text()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file of another user")
def test_a_request_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    request = mailbox.post(folder, "drain", {})
    path = folder.inbox / f"{request.id}.json"
    os.chown(path, 12345, 12345)
    assert mailbox.waiting_requests(folder) == ([], [path])


def test_a_request_can_be_withdrawn_until_it_is_applied(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    request = mailbox.post(folder, "drain", {})
    assert mailbox.withdraw(folder, request)
    assert not mailbox.withdraw(folder, request)
