"""The examples are what they say."""

import re
from pathlib import Path

from pilot.config import read_config

EXAMPLES = Path(__file__).parent.parent / "examples"

#: W. Little, table 3.2: arrangement, atoms, k-grid
TABLE = [
    ([1, 1, 2], 2, [4, 4, 2]),
    ([1, 1, 4], 4, [4, 4, 2]),
    ([1, 1, 6], 6, [4, 4, 2]),
    ([1, 2, 4], 8, [4, 4, 2]),
    ([2, 2, 2], 16, [4, 4, 4]),
    ([3, 3, 3], 54, [2, 2, 2]),
]


def test_the_lithium_example_runs_the_first_stage_and_has_all_six(tmp_path: Path) -> None:
    text = (EXAMPLES / "li-small-cell" / "pilot.toml").read_text()
    first = read_config(EXAMPLES / "li-small-cell" / "pilot.toml")
    assert len(first.stages) == 1
    stages = re.compile(r"^# (\[\[stages\]\]|\w+ = .*)$", re.MULTILINE)
    (tmp_path / "pilot.toml").write_text(stages.sub(r"\1", text))
    config = read_config(tmp_path / "pilot.toml")
    in_a_cell = {"primitive": 1, "conventional": 2}
    seen = [
        (stage.repeat, stage.repeat[0] * stage.repeat[1] * stage.repeat[2] * in_a_cell[stage.cell], stage.kpoints)
        for stage in config.stages
    ]
    assert seen == TABLE
    assert all(stage.temperatures == [100, 500] for stage in config.stages)
