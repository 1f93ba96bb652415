"""What is written about the commands and about pilot.toml is complete and up to date."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from pilot.cli.app import _HIDDEN, COMMANDS, command, run
from pilot.cli.config_docs import config_page
from pilot.cli.config_keys import all_tables
from pilot.cli.config_text import config_text
from pilot.config import Config, read_config
from pilot.snapshot import (
    CampaignStatus,
    FailureStatus,
    GenerationStatus,
    NodeStatus,
    PilotStatus,
    RunningStatus,
    Snapshot,
)

DOCS = Path(__file__).parent.parent / "docs"
SHOWN = [name for name in COMMANDS if name not in _HIDDEN]


@pytest.mark.parametrize("name", SHOWN)
def test_every_command_has_its_page_with_all_its_options(name: str) -> None:
    page = (DOCS / "commands" / f"{name}.md").read_text()
    assert page.startswith(f"# pilot {name}\n")
    for parameter in command(name).params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            if option.startswith("--") and option not in {"--help"}:
                assert option in page, f"{name}.md says nothing of {option}"
    assert f"]({name}.md)" in (DOCS / "commands" / "README.md").read_text()


@pytest.mark.parametrize("name", SHOWN)
def test_every_option_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for parameter in command(name).params:
        assert parameter.help, f"{name} {parameter.name}"
    assert run([name, "--help"]) == 0
    assert f"pilot {name}" in capsys.readouterr().out


def test_the_help_shows_all_commands_and_hides_what_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"│ {name} ", text) for name in SHOWN)
    assert "config-docs" not in text
    assert run(["--version"]) == 0
    assert re.fullmatch(r"pilot \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_page_of_pilot_toml_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config-docs"]) == 0
    assert capsys.readouterr().out == config_page()
    assert (DOCS / "reference" / "pilot-toml.md").read_text() == config_page(), (
        "type: pilot config-docs > docs/reference/pilot-toml.md"
    )


def test_every_key_is_explained() -> None:
    keys = {f"{table.heading.strip('[]')}.{key.name}" for table in all_tables() for key in table.keys}
    for path in ("campaign.species", "stages.repeat", "label.qe.input", "resources.train.ranks", "run.env"):
        assert path in keys
    assert len(keys) == len(re.findall(r"(?m)^#\w+ = ", config_text()))
    assert all(key.meaning for table in all_tables() for key in table.keys)


def test_a_file_from_nothing_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "pilot.toml"
    path.write_text(config_text())
    assert read_config(path) == Config()


def test_a_file_from_nothing_describes_a_campaign_once_it_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "pilot.toml"
    # it shows keys that exclude each other, and one that names a table that there is not
    text = re.sub(r"(?m)^#(structures|fidelity|file|levels|seeds) = .*\n|^#\[study\]\n", "", config_text())
    text = text.replace("#elastic = false", "#elastic = true")  # which [converge] asks for
    path.write_text(re.sub(r"(?m)^#(?=[\[\w])", "", text))
    config = read_config(path)
    assert config.campaign is not None
    assert config.campaign.species == ["Li"]
    assert config.label is not None
    assert config.label.ase is not None
    assert len(config.stages) == 1
    # the defaults are those of the models: writing them down changes nothing
    assert config.explore.model_copy(update={"melt": Config().explore.melt}) == Config().explore
    assert config.retries == Config().retries
    assert config.resources == Config().resources or "time_limit" in path.read_text()


def test_only_what_is_required_need_be_filled_in() -> None:
    needed = [
        line
        for table in all_tables()
        for line in (
            table.heading,
            *(f"{key.name} = {key.example}" for key in table.keys if key.required),
        )
        if not table.heading.startswith(("[study", "[label.ase", "[resources", "[retries", "[run"))
    ]
    assert Config.model_validate(tomllib.loads("\n".join(needed))).campaign is not None


@pytest.mark.parametrize(
    "record",
    [Snapshot, PilotStatus, NodeStatus, RunningStatus, FailureStatus, CampaignStatus, GenerationStatus],
)
def test_the_schema_of_the_status_is_documented(record: type) -> None:
    page = (DOCS / "status-schema.md").read_text()
    for field in dataclasses.fields(record):
        assert f"`{field.name}`" in page, field.name
