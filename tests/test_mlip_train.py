"""Training by MLIP's program: what it must leave, and what is noticed when it does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_mtp import AL, labelled
from mlip_programs import put_on_path

from db.errors import InputError, MissingError
from db.records import Resources
from db.states import Verdict
from tasks.engines import mlip_train
from tasks.engines.mlip_files import read_trained, starting_point
from tasks.engines.mlip_output import Errors, MlipError
from tasks.engines.mlip_program import Mlp
from tasks.engines.mlip_training import argv_for, refuse_disagreement, train
from tasks.formats.almtp import read_active_set
from tasks.formats.mtp import format_potential, read_potential, write_potential
from tasks.mtp.active_set import load_active_set
from tasks.mtp.basis import untrained
from tasks.mtp.data_sets import read_labelled, write_samples
from tasks.mtp.errors_of_fit import Weights
from tasks.mtp.evaluator import open_potential
from tasks.protocol import Exit, Work
from tasks.registry import POTENTIALS, engine


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "train": "train.cfg",
        "holdout": "holdout.cfg",
        "start": None,
        "level": 2,
        "species": ["Al"],
        "min_dist": 1.5,
        "max_dist": 5.0,
        "radial_basis_size": 4,
        "weights": {"energy": 1.0, "forces": 0.01, "stress": 0.001},
        "iterations": 3,
        "seed": 1,
        "settings": {"command": "mlp", "template": None},
    } | changes


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_on_path(tmp_path / "bin", monkeypatch)
    write_samples(tmp_path / "train.cfg", labelled(6, 1), ["Al"])
    write_samples(tmp_path / "holdout.cfg", labelled(3, 2), ["Al"])
    return tmp_path


def folder(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def test_a_training_leaves_what_motep_leaves_and_mlips_own_file(root: Path) -> None:
    before = (root / "train.cfg").read_bytes()
    first = folder(root, "first")
    facts = train(spec(neighbourhoods=True), root, first)
    json.dumps(facts, allow_nan=False)
    assert {"configurations", "loss", "iterations", "train", "holdout", "holdout_before", "worse"} <= facts.keys()
    assert {"parameters", "active", "seconds", "member", "stopped", "active_neighbourhoods"} <= facts.keys()
    assert (facts["configurations"], facts["parameters"], facts["holdout_before"]) == (6, 6, None)
    published = {*POTENTIALS["mlip-3"].files, *POTENTIALS["mlip-3"].optional} - {"pot.als"}
    assert published <= {file.name for file in first.iterdir()}
    potential = open_potential(first / "pot.mtp", AL)
    active = load_active_set(first / "active.npz", potential)
    theirs = read_active_set(first / "pot.almtp")
    assert active.members == facts["active"] == facts["mlip"]["active"] == len(set(theirs.rows) - {-1})
    ours = np.linalg.slogdet(active.matrix)[1]
    assert ours == pytest.approx(np.linalg.slogdet(theirs.matrix)[1], abs=1e-6)
    # neither the data nor the start nor min_dist has moved
    assert (root / "train.cfg").read_bytes() == before
    assert float(potential.radial_basis.min) == 1.5
    assert read_potential(first / "start.mtp").moment_coeffs is None
    refuse_altered(first / "pot.almtp")
    # from there on it is a warm start, whatever pilot.toml says of min_dist now
    start = (first / "pot.mtp").read_bytes()
    facts = train(spec(start="first/pot.mtp", min_dist=1.2), root, folder(root, "second"))
    assert facts["holdout_before"] is not None
    assert isinstance(facts["worse"], bool)
    assert (first / "pot.mtp").read_bytes() == start
    assert float(read_potential(root / "second" / "pot.mtp").radial_basis.min) == 1.5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("liar", r"do not agree about the potential: RMS error of the training set \(energy, eV/atom\)"),
        ("deaf", "has not taken energy_weight = 3: it says 1.000000"),
        ("killed", "killed by SIGKILL"),
    ],
)
def test_what_is_not_a_training_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str) -> None:
    monkeypatch.setenv("MLP_FAULT", fault)
    weights = {"energy": 3.0, "forces": 0.01, "stress": 0.001}
    with pytest.raises(MlipError, match=words):
        train(spec(weights=weights, holdout=None), root, folder(root, "work"))
    assert not (root / "work" / "active.npz").exists() or fault == "liar"


def test_a_training_that_says_nothing_is_none(root: Path) -> None:
    with pytest.raises(MlipError, match="exit code 0, but it did not say 'training complete'"):
        Mlp(("true",), root).train("start.mtp", "train.cfg", "pot.almtp", {})


def refuse_altered(file: Path) -> None:
    """Not whole, or moved: the file of a training as it could also be."""
    begun_with, content = untrained(2, 1, 1.5, 5.0, 4), file.read_bytes()
    assert read_trained(file, begun_with, active_set=True).active
    marks = {
        content[:-40]: "cannot be used: .*ends in the middle",
        content[: content.index(b"#MVS")]: "cannot be used: .*no active set",
        content[:300]: "cannot be used: .*not whole",
        content.replace(b"min_dist = 1.5", b"min_dist = 1.4"): "has moved min_dist from 1.5 to 1.4 Å",
        content.replace(b"max_dist = 5.0", b"max_dist = 5.1"): "another cutoff max_dist",
    }
    for altered, words in marks.items():
        (file.parent / "altered.almtp").write_bytes(altered)
        with pytest.raises(MlipError, match=words):
            read_trained(file.parent / "altered.almtp", begun_with, active_set=True)


def test_mlip_2_trains_and_leaves_its_active_set_beside(root: Path) -> None:
    where = folder(root, "work")
    facts = train(spec(dialect="mlip-2", settings={"command": "mlp-2", "template": None}, holdout=None), root, where)
    assert facts["mlip"]["dialect"] == "mlip-2"
    assert (where / "pot.als").is_file()
    assert not (where / "pot.almtp").exists()
    assert load_active_set(where / "active.npz", open_potential(where / "pot.mtp", AL)).members == facts["active"]


def test_members_of_an_ensemble_begin_otherwise(root: Path) -> None:
    pairs = read_labelled(root / "train.cfg", ["Al"])
    texts = []
    for member, seed in ((0, 1), (0, 2), (1, 2), (2, 3), (2, 3)):
        potential, start = starting_point(spec(level=6, member=member, seed=seed), root, pairs, AL, Weights())
        assert start is None
        texts.append(format_potential(potential))
    assert texts[0] == texts[1] != texts[2] != texts[3] == texts[4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"species": ["Al", "Cu"]}, "no configuration of the training set has Cu"),
        ({"train": None}, "nothing is labelled"),
        ({"settings": {"command": "mlp", "template": "wide.mtp"}}, "max_dist is 6 in the template, 5 by pilot.toml"),
        ({"start": "wide.mtp"}, "the start is not trained"),
        ({"settings": {"command": "'", "template": None}}, "cannot be used"),
    ],
)
def test_what_cannot_be_trained_is_refused(root: Path, changes: dict[str, Any], words: str) -> None:
    write_potential(root / "wide.mtp", untrained(2, 1, 1.5, 6.0, 4))
    with pytest.raises(InputError, match=words):
        train(spec(**changes), root, folder(root, "work"))


def test_a_template_of_the_user_is_begun_with(root: Path) -> None:
    write_potential(root / "mine.mtp", untrained(4, 1, 1.5, 5.0, 4))
    settings = {"command": "mlp", "template": "mine.mtp"}
    potential, start = starting_point(spec(settings=settings), root, [], AL, Weights())
    assert start is None
    assert potential.alpha_scalar_moments == untrained(4, 1, 1.5, 5.0, 4).alpha_scalar_moments


def test_a_scaling_of_one_is_left_out_by_mlip_and_read_all_the_same(tmp_path: Path) -> None:
    potential = untrained(2, 1, 1.5, 5.0, 4)
    potential.radial_coeffs = np.ones((1, 1, 1, 4))
    potential.species_coeffs, potential.moment_coeffs = np.array([0.3]), np.array([0.7])
    lines = [line for line in format_potential(potential).splitlines() if not line.startswith("scaling")]
    (tmp_path / "pot.mtp").write_text("\n".join(lines))
    assert float(read_trained(tmp_path / "pot.mtp", potential, active_set=False).potential.scaling) == 1.0


def test_errors_that_agree_to_the_printed_digits_agree() -> None:
    ours = {"rmse_energy_per_atom": 0.0273477687, "rms_force_vector": 0.1027203}
    refuse_disagreement(ours, Errors(88, 0.0273478, 0.10272), "training set")
    with pytest.raises(MlipError, match=r"0\.1028 by mlp, 0.10272 by pilot"):
        refuse_disagreement(ours, Errors(88, 0.0273478, 0.1028), "training set")


def test_the_engine_says_what_became_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlip = engine("mlip-3")
    work = Work(root, folder(root, "work"), 7, spec(), Resources(ranks=1))
    with pytest.raises(InputError, match="has no level"):
        mlip.prepare(Work(root, root / "work", 7, {key: value for key, value in spec().items() if key != "level"}))
    command = mlip.prepare(work)
    assert command.argv[1:] == ("-P", "-m", "tasks.steps")
    task = json.loads((root / "work" / "task.json").read_text())
    assert (task["step"], task["spec"]["dialect"], task["spec"]["ranks"]) == ("train-mlip", "mlip-3", 1)
    assert not mlip.stop_softly(work)
    (root / "work" / "stderr").write_text("mlp train failed: killed by SIGKILL\n")
    assert mlip.judge(work, Exit(code=1)).verdict is Verdict.OUT_OF_MEMORY
    (root / "work" / "stderr").write_text("MLIP and pilot do not agree about the potential\n")
    assert mlip.judge(work, Exit(code=1)).verdict is Verdict.CRASHED
    assert mlip.find({"command": "mlp"}).ok
    assert "serial version" in mlip.find({"command": "mlp"}).found
    assert not mlip.find({"command": "no-such-mlp"}).ok
    assert engine("mlip-2").name == "mlip-2"
    with pytest.raises(MissingError):
        train(spec(settings={"command": "no-such-mlp", "template": None}), root, root / "work")


def test_more_ranks_than_one_get_a_launcher_unless_the_user_has_given_one() -> None:
    assert argv_for(spec()) == ("mlp",)
    assert argv_for(spec(ranks=4)) == ("mpirun", "-n", "4", "mlp")
    assert argv_for(spec(ranks=4, settings={"command": "srun -n 2 mlp"})) == ("srun", "-n", "2", "mlp")
    assert mlip_train.ENGINE.name == "mlip-3"
