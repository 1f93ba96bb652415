"""Moments as people write them: "14:30", "2026-11-22 14:30", "+2 h"."""

import re
from datetime import datetime, timedelta

from db.errors import InputError
from pilot.durations import parse_duration


def parse_moment(text: str, now: float) -> float:
    """Seconds since 1970 of "14:30" (the next one), "2026-11-22 14:30" (or with a T, or with seconds), "+2 h".

    Without a zone it is the time on this machine's wall.

    Raises:
        InputError: it is no moment.
    """
    given = text.strip()
    if given.startswith("+"):
        return now + parse_duration(given[1:])
    today = datetime.fromtimestamp(now).astimezone()
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}", given):
            hour, _, minute = given.partition(":")
            moment = today.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0, tzinfo=None)
            return _later(moment, now).timestamp()
        return datetime.fromisoformat(given).timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"{text!r} is no moment", where="--by", next_step='write it like "14:30", "2026-11-22 14:30" or "+2 h"'
        ) from None


def _later(moment: datetime, now: float) -> datetime:
    return moment if moment.timestamp() > now else moment + timedelta(days=1)
