"""What the pages tell a user to write is what pilot reads."""

import re
from pathlib import Path

import pytest

from pilot.config import read_config

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1)
    # the others are parts of one
    if "[campaign]" in block
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_pilot_toml_of_the_pages_is_valid(tmp_path: Path, block: str) -> None:
    (tmp_path / "pilot.toml").write_text(block)
    config = read_config(tmp_path / "pilot.toml")
    assert config.model_fields_set


def test_every_link_between_the_pages_leads_somewhere() -> None:
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    dead = [
        f"{page.relative_to(DOCS.parent)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert dead == []
