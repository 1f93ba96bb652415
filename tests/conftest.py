"""Fixtures that more than one test module uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from started_pilot import started

from db.engine import Writer, open_writer

__all__ = ["started", "writer"]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """An empty database, open for writing."""
    opened = open_writer(tmp_path / "pilot.db")
    yield opened
    opened.close()
