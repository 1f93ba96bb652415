"""Untrained moment tensor potentials of any level.

The level decides which scalar functions the potential has (:mod:`tasks.mtp.graphs`) and how they are
evaluated (:mod:`tasks.mtp.contraction`). Level 8 is, index by index, the file that MLIP's tutorial prints. Above
it the number of functions agrees with published potentials (levels 12, 16 and 22 were compared); that they are
the same functions is inferred from that. Their order and the intermediate tensors are our own. A potential file
names them all, so a program that reads the format needs nothing else to evaluate it.

The functions are different graphs, but from level 16 on not all are linearly independent: by the theorem of
Cayley and Hamilton the matrix M_{0,2}, whose trace is M_{0,0}, obeys one relation between the traces of its
powers at level 16 (91 of 92 functions are independent; 161 of 163 at level 18, 282 of 288 at level 20). They
are kept, so that a level has the number of parameters that the papers say.
"""

import functools
import math

import numpy as np
from motep.potentials.mtp.data import BasisData, MTPData

from db.errors import InputError
from tasks.formats.mtp import format_potential
from tasks.mtp.contraction import Program
from tasks.mtp.graphs import scalars

LEVELS = tuple(range(2, 29, 2))


def untrained(level: int, species_count: int, min_dist: float, max_dist: float, radial_basis_size: int) -> MTPData:
    """A potential without coefficients.

    Args:
        level: lev_max of Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002 (2021); one of ``LEVELS``.
        species_count: number of chemical elements.
        min_dist: where the radial polynomials begin, Å; no two atoms should come closer.
        max_dist: the cutoff, Å.
        radial_basis_size: number of radial polynomials.

    Returns:
        a potential for motep's trainer; it has species_count² · N_rad · radial_basis_size radial
        parameters, one for each species, and one for each scalar function.

    Raises:
        InputError: there is no such level, or another argument makes no sense.
    """
    _check(level, species_count, min_dist, max_dist, radial_basis_size)
    program, mapping = _program(level)
    return MTPData(
        version="1.1.0",
        potential_name="MTP1m",
        species_count=species_count,
        radial_basis=BasisData(
            type="RBChebyshev", min=np.float64(min_dist), max=np.float64(max_dist), size=np.int32(radial_basis_size)
        ),
        radial_funcs_count=1 + max(mu for mu, *_ in program.basic),
        alpha_moments_count=program.moments,
        alpha_index_basic_count=len(program.basic),
        alpha_index_basic=np.array(program.basic, dtype=np.int32).reshape(-1, 4),
        alpha_index_times_count=len(program.steps),
        alpha_index_times=np.array(program.steps, dtype=np.int32).reshape(-1, 4),
        alpha_scalar_moments=len(mapping),
        alpha_moment_mapping=np.array(mapping, dtype=np.int32),
    )


def template_text(level: int, species_count: int, min_dist: float, max_dist: float, radial_basis_size: int) -> str:
    """The same as the text of an ``.mtp`` file, for MLIP's own programs.

    Raises:
        InputError: as :func:`untrained`.
    """
    return format_potential(untrained(level, species_count, min_dist, max_dist, radial_basis_size))


@functools.cache
def _program(level: int) -> tuple[Program, tuple[int, ...]]:
    """The evaluation program of a level, and the moments that are its scalars."""
    graphs = scalars(level)
    program = Program()
    for mu, nu in sorted({moment for graph in graphs for moment in graph.moments}):
        program.add_basic(mu, nu)
    return program, tuple(program.add(graph) for graph in graphs)


def _check(level: int, species_count: int, min_dist: float, max_dist: float, radial_basis_size: int) -> None:
    if level not in LEVELS:
        raise InputError(
            f"there is no potential of level {level}",
            where="level",
            next_step=f"choose one of {', '.join(map(str, LEVELS))}",
        )
    if species_count < 1 or radial_basis_size < 1:
        raise InputError(
            f"{species_count} species and {radial_basis_size} radial functions: both must be at least 1",
            where="species, radial_basis_size",
            next_step="name at least one element, and use a radial basis of 8 if in doubt",
        )
    if not (math.isfinite(max_dist) and 0 <= min_dist < max_dist):
        raise InputError(
            f"min_dist = {min_dist} Å and max_dist = {max_dist} Å do not enclose a range of distances",
            where="min_dist, max_dist",
            next_step="set min_dist below the shortest distance of the training set and max_dist to the cutoff",
        )
