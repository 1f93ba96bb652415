"""The examples are what they say."""

import math
from pathlib import Path

import pytest

from pilot.cli.founding import examples
from pilot.config import Config, read_config

EXAMPLES = Path(__file__).parent.parent / "examples"

#: W. Little, table 3.2: arrangement, atoms, k-grid
LI_TABLE = [
    ([1, 1, 2], 2, [4, 4, 2]),
    ([1, 1, 4], 4, [4, 4, 2]),
    ([1, 1, 6], 6, [4, 4, 2]),
    ([1, 2, 4], 8, [4, 4, 2]),
    ([2, 2, 2], 16, [4, 4, 4]),
    ([3, 3, 3], 54, [2, 2, 2]),
]
#: the Pb report, section 3.4 and the cells it could not come to; the k-grids are all of one density
PB_TABLE = [
    ([1, 1, 1], 4, [4, 4, 4]),
    ([1, 1, 2], 8, [4, 4, 2]),
    ([1, 2, 2], 16, [4, 2, 2]),
    ([2, 2, 2], 32, [2, 2, 2]),
]


def config_of(example: str) -> Config:
    return read_config(EXAMPLES / example / "pilot.toml")


def table_of(config: Config, *, in_a_conventional_cell: int) -> list[tuple[list[int] | None, int, list[int] | None]]:
    """Arrangement, atoms and k-grid of each stage."""
    in_a_cell = {"primitive": 1, "conventional": in_a_conventional_cell}
    return [
        (stage.repeat, math.prod(stage.repeat or []) * in_a_cell[stage.cell], stage.kpoints) for stage in config.stages
    ]


def test_the_lithium_example_has_all_six_stages_of_the_thesis() -> None:
    config = config_of("li-small-cell")
    assert table_of(config, in_a_conventional_cell=2) == LI_TABLE
    assert all(stage.temperatures == [100, 500] for stage in config.stages)
    assert config.converge.lattice_parameter == 0.01


def test_lithium_on_a_laptop_is_the_first_of_them() -> None:
    config = config_of("li-laptop")
    assert table_of(config, in_a_conventional_cell=2) == LI_TABLE[:1]
    assert config.stages[0].temperatures == [100, 500]


def test_the_lead_example_begins_with_what_the_report_ran_and_goes_on() -> None:
    config = config_of("pb-small-cell")
    assert table_of(config, in_a_conventional_cell=4) == PB_TABLE
    assert all(stage.temperatures == [300] and stage.pressures == [1] for stage in config.stages)
    assert (config.explore.gamma_save, config.explore.gamma_break) == (2.1, 10.0)


@pytest.mark.parametrize("example", sorted(examples()))
def test_an_example_names_pseudopotentials_that_its_own_inputs_make(example: str) -> None:
    config = config_of(example)
    assert config.label is not None
    assert config.label.qe is not None
    for symbol, name in config.label.qe.pseudopotentials.items():
        made = (EXAMPLES / example / "pseudo" / f"{symbol}.ld1.in").read_text()
        assert f"file_pseudopw = '{name}'" in made
        assert f"author = 'examples/{example}'" in made
        assert (EXAMPLES / example / "README.md").exists()
