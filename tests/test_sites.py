"""Every site has a batch script that bash reads, and a pilot.toml that is one."""

import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from command_line import Typist

from db.errors import InputError
from pilot.cli.config_text import config_text
from pilot.cli.founding import examples
from pilot.cli.site_files import activation_of, job_name, missing_keys, script_text, with_run_keys
from pilot.cli.sites import Site, find_site, frame, sites
from pilot.config import Config

NAMES = sorted(sites())
SITE = Site("here", "here", limits="none", header="#SBATCH --nodes=1", prepare="true", run={"mpi": "srun"})


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist:
    return Typist(tmp_path, capsys, monkeypatch)


def orders(script: str) -> dict[str, str]:
    """The orders to SLURM, as it reads them: all that stand before the first command."""
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH"):
            name, _, value = line.split()[1].partition("=")
            assert name not in found, f"{name} is ordered twice"
            found[name] = value
        elif line and not line.startswith("#"):
            break
    return found


def test_the_sites_that_were_asked_for_are_there() -> None:
    asked = {"pitagora-dcgp", "pitagora-booster", "leonardo-dcgp", "lumi-c", "marenostrum5-gpp", "dardel"}
    assert asked | {"perlmutter-cpu", "generic"} <= set(NAMES)
    assert list(sites())[-1] == "generic"


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_read_by_bash_and_has_what_the_pilot_needs(name: str, typed: Typist) -> None:
    typed("init", "--site", name, "--account", "FUA39_TEST")
    path = typed.folder.root / "pilot.sh"
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    text = path.read_text()
    assert "CHANGE_ME" not in text.replace("while it is CHANGE_ME", "")
    assert not [line for line in text.splitlines() if len(line) > 120]
    assert text.rstrip().endswith("\nexec pilot run")
    given = orders(text)
    assert given["--account"] == "FUA39_TEST"
    assert given["--job-name"] == job_name(typed.folder.root)
    assert given["--dependency"] == "singleton"
    assert given["--signal"] == "B:USR1@180"
    assert {"--nodes", "--time", "--exclusive", "--no-kill", "--requeue", "--output"} <= given.keys()
    assert given["--open-mode"] == "append"
    assert ("--mem" in given) is (name != "marenostrum5-gpp")
    # every order was read: none stands behind a command
    assert sum(line.startswith("#SBATCH") for line in text.splitlines()) == len(given)
    assert not Path(path.parent / "README.md").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("example", [None, *examples()])
def test_pilot_toml_has_the_keys_of_the_site_and_is_else_what_it_was(name: str, example: str | None) -> None:
    site = find_site(name)
    before = config_text() if example is None else (examples()[example] / "pilot.toml").read_text()
    after = with_run_keys(before, site)
    data = tomllib.loads(after)
    assert {key: data.get("run", {}).get(key) for key in site.run} == site.run
    assert Config.model_validate(data).run.mpi == site.run.get("mpi", "auto")
    data.pop("run", None)
    expected = tomllib.loads(before)
    expected.pop("run", None)
    assert data == expected
    if not site.run:
        assert after == before


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("", {"mpi": "srun"}),
        ("[run]\n", {"mpi": "srun"}),
        ('[run]\ncores = 4\nmpi = "none"\n[retries]\ncrashed = 1\n', {"cores": 4, "mpi": "srun"}),
        ('[run]\ncores = 4\n[train]\n# mpi\nmpi = "none"\n', {"cores": 4, "mpi": "srun"}),
        ('#[run]\n\n# how\n#mpi = "auto"\n\n#env = {}\n', {"mpi": "srun"}),
        ("[run]   # how\ncores = 2", {"cores": 2, "mpi": "srun"}),
    ],
)
def test_a_key_is_written_into_its_table_only(text: str, run: dict[str, object]) -> None:
    made = tomllib.loads(with_run_keys(text, SITE))
    assert made.pop("run") == run
    before = tomllib.loads(text)
    before.pop("run", None)
    assert made == before


def test_the_table_of_sites_fits(typed: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = typed("init", "--list-sites").out.splitlines()
    assert max(len(line) for line in lines) <= 100
    (dcgp,) = [line.split() for line in lines if line.startswith("pitagora-dcgp")]
    assert dcgp == ["pitagora-dcgp", "256", "0", "768", "GiB", "dcgp_fua_prod", "64", "24", "h", "auto", "no"]
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in NAMES)
    assert "?: not verified" in " ".join(lines)
    assert list(typed.folder.root.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "near"), [("pitagora", "pitagora-"), ("LUMI", "lumi-c"), ("leonardo_dcgp", "leonardo-dcgp")]
)
def test_a_site_that_is_not_known_is_answered_with_the_nearest(name: str, near: str, typed: Typist) -> None:
    said = typed.fails("init", "--site", name, "new", code=2)
    assert f"there is no site '{name}'; did you mean {near}" in said
    assert "`pilot init --list-sites`" in said
    assert not (typed.folder.root / "new").exists()


def test_an_account_is_one_word_and_for_a_site(typed: Typist) -> None:
    assert "add --site" in typed.fails("init", "--account", "FUA39", code=2)
    assert "is not the name of an account" in typed.fails("init", "--site", "generic", "--account", "a b", code=2)
    assert list(typed.folder.root.iterdir()) == []


def test_a_campaign_folder_that_has_no_script_gets_one_and_keeps_the_rest(typed: Typist) -> None:
    typed("init", "li", "--example", "li-small-cell")
    config = typed.folder.root / "li" / "pilot.toml"
    before = config.read_bytes()
    said = typed("init", "li", "--site", "dardel").out
    assert 'write into [run] of pilot.toml, which is left as it is:  mpi = "srun"' in said
    assert config.read_bytes() == before
    assert "#SBATCH --account=CHANGE_ME\n" in (config.parent / "pilot.sh").read_text()
    config.write_text(with_run_keys(before.decode(), find_site("dardel")))
    assert missing_keys(config, find_site("dardel")) == []
    assert "pilot.sh" in typed.fails("init", "li", "--site", "lumi-c", code=5)
    assert "Dardel" in (config.parent / "pilot.sh").read_text()


def test_an_example_for_a_site_is_whole_or_not_there(typed: Typist) -> None:
    new = typed.folder.root / "new"
    new.mkdir()
    (new / "README.md").write_text("mine")
    assert "README.md" in typed.fails("init", "new", "--site", "lumi-c", "--example", "li-small-cell", code=5)
    assert [path.name for path in new.iterdir()] == ["README.md"]
    (new / "README.md").unlink()
    said = typed("init", "new", "--site", "lumi-c", "--example", "li-small-cell").out
    assert {path.name for path in new.iterdir()} == {"README.md", "pilot.sh", "pilot.toml", "pseudo"}
    assert "cd new\n" in said
    assert "pilot submit --dry-run" in said


def test_names_of_jobs_are_short_and_of_one_folder_only(tmp_path: Path) -> None:
    names = {job_name(tmp_path / name) for name in ("a b", "a-b", "ä" * 80, "x" * 200, "x" * 201)}
    assert len(names) == 5
    assert all(len(name) <= 53 and name.isascii() and " " not in name for name in names)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert job_name(tmp_path / "link") == job_name(tmp_path / "real")


def test_the_environment_of_the_one_who_typed_is_that_of_the_job(tmp_path: Path) -> None:
    venv = tmp_path / "my env"
    (venv / "bin").mkdir(parents=True)
    assert activation_of(venv).splitlines()[-1] == f"""export PATH='{venv}/bin':"$PATH\""""
    (venv / "bin" / "activate").touch()
    assert activation_of(venv).splitlines()[-1] == f"source '{venv}/bin/activate'"
    text = script_text(SITE, tmp_path, None, activation_of(venv))
    assert f"\nsource '{venv}/bin/activate'\n" in text
    assert "@" not in text.replace("USR1@180", "")


def test_every_field_of_the_frame_is_known() -> None:
    assert "@ACCOUNT@" in frame()
    assert script_text(SITE, Path("/x"), "@HEADER@", "").count("@HEADER@") == 1
    with pytest.raises(InputError):
        find_site("")


def test_every_file_of_a_site_is_installed() -> None:
    source = Path(__file__).parent.parent
    project = tomllib.loads((source / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["slurm_templates"]
    files = [path.name for path in (source / "slurm_templates").iterdir() if path.suffix in {".sh", ".toml"}]
    assert len(files) > len(NAMES)
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)] == []
