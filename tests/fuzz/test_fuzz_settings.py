"""pilot.toml, times and sizes as no user would write them: a sentence, or a value that makes sense."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

import contextlib
import math
from pathlib import Path

import pytest
from hostile import damaged, fuzzed, place, truncations
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError, PilotError
from pilot.cli.founding import examples
from pilot.cli.options import parse_ids, parse_memory, parse_pairs
from pilot.config import Config, read_config
from pilot.durations import parse_duration, say_duration

EXAMPLE = (examples()["li-small-cell"] / "pilot.toml").read_bytes()


def read(path: Path, data: bytes) -> Config | None:
    path.write_bytes(data)
    try:
        return read_config(path)
    except PilotError as error:
        assert error.where == str(path)
        assert error.next_step
        assert len(error.what) < 3000
        return None


@fuzzed
@given(damaged(EXAMPLE))
def test_a_damaged_pilot_toml(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    config = read(place(tmp_path_factory) / "pilot.toml", data)
    if config is not None:
        for stage in config.stages:
            assert all(math.isfinite(value) for value in (*stage.temperatures, *stage.pressures))
            assert math.prod(stage.repeat) <= 100**3


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b=" * 10_000,
        b"[run]\nwalltime = inf",
        b"[run]\nwalltime = nan",
        b"[run]\nwalltime = 1e400",
        b'[run]\nwalltime = "' + b"9" * 400 + b' d"',
        "[run]\nwalltime = '²:³'".encode(),
        b"[run]\ncores = 4000000000",
        b"[run]\ncores = " + b"9" * 5000,
        b"[run]\ncores = 0x" + b"f" * 9000,
        b"[run]\nmpi_arguments = " + b'["' + b"x" * 100_000 + b'", 1]',
        b"[resources.label]\nranks = -1",
        b"\xff\xfe[\0r\0u\0n\0]\0",
        b"[run]\0",
    ],
)
def test_a_hostile_pilot_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    assert read(tmp_path / "pilot.toml", text) is None


def test_a_mark_of_byte_order_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pilot.toml"
    assert read(path, b"\xef\xbb\xbf" + EXAMPLE.replace(b"\n", b"\r\n")) == read(path, EXAMPLE) is not None


def test_a_folder_called_pilot_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pilot.toml").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "pilot.toml")


@fuzzed
@given(st.one_of(st.text(), damaged(b"1:30:00"), damaged(b"1.5 h"), damaged(b"10 min")))
def test_times(text: str | bytes) -> None:
    word = text if isinstance(text, str) else text.decode("utf-8", "replace")
    try:
        seconds = parse_duration(word)
    except InputError as error:
        assert len(error.what) < 1000
        return
    assert 0 <= seconds < math.inf
    assert say_duration(seconds)


@fuzzed
@given(st.floats(0, 1e9))
def test_times_are_said_so_that_they_can_be_read(seconds: float) -> None:
    first = say_duration(round(seconds)).split(" ")
    assert first[0].replace(".", "").isdigit()


@fuzzed
@given(st.text())
def test_ids_memory_and_pairs(text: str) -> None:
    for parse in (lambda: parse_ids((text,)), lambda: parse_memory(text), lambda: parse_pairs((text,))):
        with contextlib.suppress(InputError):
            parse()


@pytest.mark.parametrize("text", ["1-4000000000", "1-" + "9" * 5000, "²", "3-1"])
def test_ids_that_explode_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_ids((text,))


def test_a_cut_pilot_toml_is_refused_or_says_less(tmp_path: Path) -> None:
    whole = read(tmp_path / "pilot.toml", EXAMPLE)
    assert whole is not None
    for data in truncations(EXAMPLE)[::97]:
        got = read(tmp_path / "pilot.toml", data)
        if got is not None and got.crystal is not None and whole.crystal is not None:
            assert got.crystal.a == whole.crystal.a
