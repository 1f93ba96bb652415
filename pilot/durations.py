"""Times as people write them: "90 s", "10 min", "1.5 h", "2 d", "1:30:00"."""

import re

from db.errors import InputError

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{0,12}\.?[0-9]{1,12})\s*([a-z]*)")
_CLOCK = re.compile(r"([0-9]{1,9}):([0-9]{1,9})(?::([0-9]{1,9}))?")


def parse_duration(text: str | float) -> float:
    """Seconds.

    Raises:
        InputError: it is not a time.
    """
    if isinstance(text, int | float):
        return float(text)
    if ":" in text:
        return _clock(text)
    match = _NUMBER_AND_UNIT.fullmatch(text.strip().lower())
    if match is None or (match[2] or "s") not in _UNITS:
        raise _unreadable(text)
    return float(match[1]) * _UNITS[match[2] or "s"]


def say_duration(seconds: float | None) -> str:
    """Short, for people: 0.42 s, 12 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86400, "d", whole % 86400 // 3600, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def _clock(text: str) -> float:
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise _unreadable(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _unreadable(text: str) -> InputError:
    return InputError(f"{text[:200]!r} is not a time", next_step='write it like "90 s", "10 min", "1.5 h" or "1:30:00"')
