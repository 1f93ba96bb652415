"""The loss function of the fit is motep's, value and slope, whatever is in the training set."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from motep.loss import LossFunction, LossSetting
from motep.parallel import DummyMPIComm
from test_evaluator import distorted, random_potential

from db.records import Label
from tasks.formats.atoms import from_atoms, to_atoms
from tasks.mtp.errors_of_fit import Pair, Weights, differences, loss_of
from tasks.mtp.evaluator import Evaluator
from tasks.mtp.loss import Loss
from tasks.mtp.reference import reference_energies

SPECIES = [13, 29]


def pairs_of(symbols: Sequence[str], seed: int) -> list[Pair]:
    """Distorted cells of many sizes with arbitrary labels; the last two have no stress, one of them is a cluster."""
    rng = np.random.default_rng(seed)
    cells = [distorted(seed + k, repeat, list(symbols)) for k, repeat in enumerate([(1, 1, 1), (1, 2, 2), (3, 3, 3)])]
    cells += [distorted(seed + 9, (1, 1, 2), list(symbols))]
    cells += [Atoms([symbols[0]] * 3, positions=[(0, 0, 0), (2.5, 0, 0), (0.5, 2.4, 0.3)])]
    pairs = []
    for number, atoms in enumerate(cells):
        label = Label.from_json(
            {
                "energy": -50.0 * len(atoms) + rng.normal(),
                "forces": rng.normal(0.0, 1.0, (len(atoms), 3)).tolist(),
                "stress": rng.normal(0.0, 0.05, 6).tolist() if number < 3 else None,
            }
        )
        pairs.append((from_atoms(atoms)[0], label))
    return pairs


@pytest.mark.parametrize("symbols", [["Al"], ["Al", "Cu"]])
@pytest.mark.parametrize("level", [2, 8, 14])
@pytest.mark.parametrize("remembered", [0, 400_000_000])
def test_value_and_slope_are_those_of_motep(
    symbols: list[str], level: int, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.mtp.loss._REMEMBERED", remembered)
    monkeypatch.setattr("tasks.mtp.training_blocks._MOST_ATOMS", 20)
    species = SPECIES[: len(symbols)]
    pairs = pairs_of(symbols, 3)
    potential = random_potential(level, species)
    _, shifts = reference_energies(pairs, species)
    loss = Loss(potential, pairs, shifts, species, Weights(1.0, 0.03, 0.002))
    images = []
    for (structure, label), shift in zip(pairs, shifts, strict=True):
        atoms = to_atoms(structure)
        known = {"energy": label.energy - shift, "forces": np.array(label.forces)}
        if label.stress is not None:
            known["stress"] = np.array(label.stress)
        atoms.calc = SinglePointCalculator(atoms, **known)
        images.append(atoms)
    setting = LossSetting(energy_weight=1.0, forces_weight=0.03, stress_weight=0.002)
    theirs = LossFunction(images, potential, setting, comm=DummyMPIComm())
    potential.optimized = ["species_coeffs", "moment_coeffs", "radial_coeffs"]
    rng = np.random.default_rng(1)
    for _ in range(2):  # the second time all is remembered
        parameters = np.array(potential.parameters) * rng.uniform(0.7, 1.3, len(potential.parameters))
        assert loss_of_motep(theirs, parameters) == pytest.approx(loss.value(), rel=1e-11)
        expected = np.asarray(theirs.jac(parameters))
        np.testing.assert_allclose(loss.slope(), expected, rtol=1e-8, atol=1e-11 * np.abs(expected).max())


def loss_of_motep(loss: LossFunction, parameters: np.ndarray) -> float:
    return float(loss(parameters))


def test_it_is_the_loss_that_is_reported() -> None:
    pairs = pairs_of(["Al"], 5)[:2]
    potential = random_potential(6, [13])
    loss = Loss(potential, pairs, np.zeros(2), [13], Weights())
    found = differences(Evaluator(potential), pairs, [13])
    assert loss.value() == pytest.approx(loss_of(found, Weights()), rel=1e-11)


def test_energies_that_count_atoms_are_found_and_one_composition_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    structures = [from_atoms(distorted(k, (1, 2, 3), ["Al", "Cu"]))[0] for k in range(4)]
    wanted = [sum({13: -3000.0, 29: -5700.25}[z] for z in structure.numbers) for structure in structures]
    pairs = [(s, Label(e, tuple((0.0, 0.0, 0.0) for _ in s.numbers))) for s, e in zip(structures, wanted, strict=True)]
    energies, shifts = reference_energies(pairs, SPECIES)
    np.testing.assert_allclose(energies, [-3000.0, -5700.25], rtol=1e-12)
    np.testing.assert_allclose(shifts, wanted, rtol=1e-13)
    assert capsys.readouterr().out == ""
    reference_energies(pairs[:1], SPECIES)
    assert "do not tell the energies of the species apart" in capsys.readouterr().out
