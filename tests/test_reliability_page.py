"""The page that says what happens when something goes wrong names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(test_[a-z0-9_]+\.py)(?:::(test_\w+))?`")


def test_each_row_names_tests_that_are_there() -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = NAMED.findall(page)
    missing = [f"{file}::{test}" for file, test in named if f"def {test}" not in files.get(file, "")]
    assert missing == []
    rows = [
        line for line in page.split("## The tables")[1].splitlines() if line.startswith("| ") and "shown by" not in line
    ]
    assert len(rows) > 50
    assert [row for row in rows if not NAMED.search(row)] == []
