"""Potential files of MLIP: ``.mtp``, and the head of ``.almtp`` (what follows ``#MVS`` is in ``almtp``).

We read both spellings, ``radial_coefs`` (MLIP-2) and ``radial_coeffs`` (MLIP-3), and write the second, in
the layout that MLIP-3 and motep both read.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from motep.potentials.mtp.data import BasisData, MTPData

from db.errors import InputError
from db.files import write_whole
from tasks.formats.mtp_parser import RADIAL, Entry, bad, finite, read_entries, whole, words_of

#: the first line of the active set, which ends the text of a potential in an ``.almtp``
ACTIVE_SET_MARK = b"#MVS"

_INTEGERS = (
    "species_count",
    "radial_basis_size",
    "radial_funcs_count",
    "alpha_moments_count",
    "alpha_index_basic_count",
    "alpha_index_times_count",
    "alpha_scalar_moments",
)
_REALS = ("scaling", "min_dist", "max_dist")
_TEXTS = ("version", "potential_name", "potential_tag", "radial_basis_type")
_INTEGER_LISTS = ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping")
_REAL_LISTS = ("species_coeffs", "moment_coeffs")
_OPTIONAL = {"scaling", "version", "potential_name", "potential_tag", *_REAL_LISTS}
_KNOWN = {*_INTEGERS, *_REALS, *_TEXTS, *_INTEGER_LISTS, *_REAL_LISTS}

_PAIR = re.compile(r"\s*([0-9]{1,3})-([0-9]{1,3})\s*")
#: more radial coefficients has no potential; the counts of a template are believed up to here
_MOST = 10_000_000


def read_potential(path: Path) -> MTPData:
    """Read a potential, trained or not.

    Args:
        path: a ``.mtp``, or an ``.almtp``, of which only the potential is read.

    Returns:
        the potential; coefficients that the file does not have are None. ``species`` is not set: the file
        knows types, not elements.

    Raises:
        InputError: there is no such file, or it is not a whole potential of a kind that we can evaluate.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the potential: {error.strerror}",
            where=str(path),
            next_step="check the name of the file and its permissions",
        ) from error
    return parse_potential(content.split(ACTIVE_SET_MARK, 1)[0], str(path))


def parse_potential(content: bytes, where: str) -> MTPData:
    """Make a potential from the text of its file.

    Raises:
        InputError: as :func:`read_potential`; ``where`` is the file it names.
    """
    text = content.decode("utf-8", errors="replace").replace("coefs", "coeffs").replace("\r\n", "\n")
    if not text.lstrip().startswith("MTP"):
        raise bad("this is not an MTP file: it does not begin with MTP", where)
    if "magnetic_basis" in text:
        raise bad("this is a magnetic potential, which cannot be used here", where)
    entries = read_entries(text, _KNOWN, where)
    values = _values(entries, where)
    if values["radial_basis_type"] != "RBChebyshev":
        raise bad(f"the radial basis {values['radial_basis_type']} cannot be used here, RBChebyshev can", where)
    try:
        basis = BasisData(
            type=values["radial_basis_type"],
            min=np.float64(values["min_dist"]),
            max=np.float64(values["max_dist"]),
            size=values["radial_basis_size"],
        )
    except ValueError as error:
        raise bad(f"the radial basis makes no sense: {error}", where) from error
    plain = {key: value for key, value in values.items() if key not in _BASIS_KEYS}
    if "moment_coeffs" in values and "scaling" not in values:
        raise bad("the file is not whole: scaling missing", where)
    data = MTPData(radial_basis=basis, radial_coeffs=_radial_coefficients(entries, values, where), **plain)
    _check(data, where)
    return data


_BASIS_KEYS = {"radial_basis_type", "min_dist", "max_dist", "radial_basis_size"}


def _values(entries: Mapping[str, Entry], where: str) -> dict[str, Any]:
    """The values of all keys, converted."""
    values: dict[str, Any] = {}
    for key, (value, line) in entries.items():
        if key in _KNOWN:
            try:
                values[key] = _convert(key, value)
            except ValueError as error:
                raise bad(f"line {line}: the value of {key} cannot be read", where) from error
    missing = sorted(_KNOWN - _OPTIONAL - values.keys())
    if missing:
        raise bad(f"the file is not whole: {', '.join(missing)} missing", where)
    sizes = [values[key] for key in ("species_count", "radial_funcs_count", "radial_basis_size")]
    if min(sizes) < 1 or sizes[0] * sizes[0] * sizes[1] * sizes[2] > _MOST:
        raise bad("the counts of species and radial functions make no sense", where)
    return values


def _convert(key: str, value: str) -> Any:
    if key in _INTEGERS:
        return whole(value)
    if key in _REALS:
        return finite(value)
    if key in _TEXTS:
        return value
    if not (value.startswith("{") and value.endswith("}")) or value.count("{") != value.count("}"):
        raise ValueError(key)
    words = words_of(value)
    if key in _REAL_LISTS:
        return np.array([finite(word) for word in words], dtype=np.float64)
    numbers = np.array([whole(word) for word in words], dtype=np.int32)
    return numbers if key == "alpha_moment_mapping" else numbers.reshape(-1, 4)


def _radial_coefficients(
    entries: Mapping[str, Entry], values: Mapping[str, Any], where: str
) -> npt.NDArray[np.float64] | None:
    """The radial coefficients, (species, species, radial functions, radial basis), or None."""
    if RADIAL not in entries:
        return None
    value, line = entries[RADIAL]
    count = values["species_count"]
    shape = (values["radial_funcs_count"], values["radial_basis_size"])
    texts: dict[tuple[int, int], list[str]] = {}
    words: list[str] = []
    for number, text in enumerate(value.split("\n"), line + 1):
        match = _PAIR.fullmatch(text)
        if match is None:
            words += words_of(text)
            continue
        pair = (int(match[1]), int(match[2]))
        if pair in texts or max(pair) >= count or (words and not texts):
            raise bad(f"line {number}: the radial coefficients of {text.strip()} are not in place, or twice", where)
        texts[pair] = words = []
    if len(texts) != count * count:
        raise bad(f"the file is not whole: it has radial coefficients of {len(texts)} pairs of {count} types", where)
    coefficients = np.empty((count, count, *shape))
    for (first, second), found in texts.items():
        name = f"the radial coefficients of the types {first}-{second}"
        if len(found) != shape[0] * shape[1]:
            raise bad(f"{name} are not {shape[0]} times {shape[1]} numbers", where)
        try:
            coefficients[first, second] = np.array([finite(word) for word in found]).reshape(shape)
        except ValueError as error:
            raise bad(f"{name} cannot be read", where) from error
    return coefficients


def _check(data: MTPData, where: str) -> None:
    """Refuse a potential whose counts and indices do not fit together: the evaluation would read astray."""
    basic, times, mapping = data.alpha_index_basic, data.alpha_index_times, data.alpha_moment_mapping
    moments = data.alpha_moments_count
    fits = (
        # a moment beyond the basic ones is the product of two
        len(basic) == data.alpha_index_basic_count <= moments <= len(basic) + len(times)
        and len(times) == data.alpha_index_times_count
        and len(mapping) == data.alpha_scalar_moments
        and bool((basic >= 0).all() and (basic[:, 0] < data.radial_funcs_count).all())
        and _inside(times[:, [0, 1, 3]], moments)
        and _inside(mapping, moments)
    )
    if not fits:
        raise bad("the counts and the indices of the alpha_ lists do not fit together", where)
    trained = [value is not None for value in (data.species_coeffs, data.moment_coeffs, data.radial_coeffs)]
    if any(trained) and not all(trained):
        raise bad("the file is not whole: only a part of the coefficients is there", where)
    expected = {"species_coeffs": data.species_count, "moment_coeffs": data.alpha_scalar_moments}
    for key, count in expected.items():
        value = getattr(data, key)
        if value is not None and len(value) != count:
            raise bad(f"{key} are not {count} numbers", where)


def _inside(indices: npt.NDArray[np.int32], end: int) -> bool:
    return bool(((indices >= 0) & (indices < end)).all())


def write_potential(path: Path, data: MTPData) -> None:
    """Write a potential; the file appears whole. Numbers come back from it exactly.

    Raises:
        StorageError: the file cannot be written.
    """
    write_whole(path, format_potential(data))


def format_potential(data: MTPData) -> str:
    """The text of a potential; an untrained one (no coefficients) gives a template."""
    return "".join(f"{line}\n" for line in _lines(data))


def _lines(data: MTPData) -> Iterator[str]:
    yield "MTP"
    yield f"version = {data.version or '1.1.0'}"
    yield f"potential_name = {data.potential_name or 'MTP1m'}"
    if data.moment_coeffs is not None:
        yield f"scaling = {_real(data.scaling)}"
    yield f"species_count = {data.species_count}"
    yield f"potential_tag = {data.potential_tag}"
    yield f"radial_basis_type = {data.radial_basis.type}"
    yield f"\tmin_dist = {_real(data.radial_basis.min)}"
    yield f"\tmax_dist = {_real(data.radial_basis.max)}"
    yield f"\tradial_basis_size = {data.radial_basis.size}"
    yield f"\tradial_funcs_count = {data.radial_funcs_count}"
    if data.radial_coeffs is not None:
        yield "\tradial_coeffs"
        for first in range(data.species_count):
            for second in range(data.species_count):
                yield f"\t\t{first}-{second}"
                yield from (f"\t\t\t{_reals(row)}" for row in data.radial_coeffs[first, second])
    yield f"alpha_moments_count = {data.alpha_moments_count}"
    yield f"alpha_index_basic_count = {data.alpha_index_basic_count}"
    yield f"alpha_index_basic = {_rows(data.alpha_index_basic)}"
    yield f"alpha_index_times_count = {data.alpha_index_times_count}"
    yield f"alpha_index_times = {_rows(data.alpha_index_times)}"
    yield f"alpha_scalar_moments = {data.alpha_scalar_moments}"
    yield f"alpha_moment_mapping = {_integers(data.alpha_moment_mapping)}"
    if data.species_coeffs is not None:
        yield f"species_coeffs = {_reals(data.species_coeffs)}"
    if data.moment_coeffs is not None:
        yield f"moment_coeffs = {_reals(data.moment_coeffs)}"


def _real(value: float) -> str:
    # 17 digits: enough to get the same number back
    return f"{value:.16e}"


def _reals(values: npt.NDArray[np.float64]) -> str:
    return "{" + ", ".join(_real(value) for value in values) + "}"


def _integers(values: npt.NDArray[np.int32]) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"


def _rows(rows: npt.NDArray[np.int32]) -> str:
    return "{" + ", ".join(_integers(row) for row in rows) + "}"
