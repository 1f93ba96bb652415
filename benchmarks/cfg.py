"""How fast .cfg files are written and read, in how much memory, beside other readers.

    python benchmarks/cfg.py [--megabytes 100] [--atoms 16] [--place FOLDER]

Each step is a process of its own, so that its peak memory is its own. Read are the numbers alone, and then records as
import and export need them. Beside it stand motep's reader and writer and, where a program ``mlp`` is on PATH, its
``convert`` (which reads and writes); and, where a C++ compiler is found, a loop that only reads the same numbers
with ``operator>>`` of a stream, as MLIP's readers do.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.formats.cfg import Configuration, format_cfg, read_cfg, to_label, to_structure, write_cfg

_SAMPLES = 64
_STREAM = r"""
#include <fstream>
#include <string>
int main(int, char** v) {
    std::ifstream file(v[1]);
    std::string word;
    double x, sum = 0;
    while (file >> word)
        if (word == "AtomData:") { std::getline(file, word); while (file >> x) sum += x; file.clear(); }
    return sum == 0.12345;
}
"""


def main() -> None:
    """Measure, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--atoms", type=int, default=16, help="of each configuration")
    parser.add_argument("--place", type=Path, help="where the files go; default: a temporary folder")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        _step(options.step[0], Path(options.step[1]), options.megabytes, options.atoms)
        return
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        _all(Path(place), options.megabytes, options.atoms)


def _all(place: Path, megabytes: float, atoms: int) -> None:
    path = place / "set.cfg"
    for name in ("write", "read", "read as records", "motep read", "motep write"):
        argv = [
            sys.executable,
            __file__,
            "--megabytes",
            str(megabytes),
            "--atoms",
            str(atoms),
            "--step",
            name,
            str(path),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:18} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        said = json.loads(done.stdout)
        print(f"{name:18} {said['rate']:7.1f} MB/s   peak {said['peak_mb']:6.0f} MB   of {said['megabytes']:.0f} MB")
    compiler = shutil.which("g++")
    if compiler:
        (place / "stream.cpp").write_text(_STREAM)
        subprocess.run([compiler, "-O2", "-o", place / "stream", place / "stream.cpp"], check=True)
        _program("C++ stream, read", [str(place / "stream"), str(path)], path)
    mlp = shutil.which("mlp")
    if mlp:
        _program("mlp convert", [mlp, "convert", str(path), str(place / "other.cfg")], path)
    else:
        print("mlp convert        no mlp on PATH")


def _program(name: str, argv: list[str], path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    print(f"{name:18} {path.stat().st_size / 1e6 / seconds:7.1f} MB/s")


def _step(name: str, path: Path, megabytes: float, atoms: int) -> None:
    begun = time.process_time()
    if name == "write":
        write_cfg(path, _some(megabytes, atoms))
    elif name == "read":
        for _ in read_cfg(path):
            pass
    elif name == "read as records":
        for configuration in read_cfg(path):
            to_structure(configuration, ["Li"])
            to_label(configuration)
    else:
        path = _with_motep(name, path)
    seconds = time.process_time() - begun
    size = path.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"rate": size / seconds, "peak_mb": peak, "megabytes": size}))


def _with_motep(name: str, path: Path) -> Path:
    """Of what motep reads, which is all in memory and without exponents: a twentieth."""
    from motep.io.mlip.cfg import read_cfg as read
    from motep.io.mlip.cfg import write_cfg as write

    part = path.with_name("part.cfg")
    plain = path.with_name("plain.cfg")
    if not plain.exists():
        write_cfg(part, (c for number, c in enumerate(read_cfg(path)) if number % 20 == 0))
        plain.write_text("\n".join(" ".join(map(_plain, line.split(" "))) for line in part.read_text().split("\n")))
    begun = time.process_time()
    images = read(plain, index=":", species=["Li"])
    if name == "motep write":
        begun = time.process_time()
        write(path.with_name("written.cfg"), images, species=["Li"])
        plain = path.with_name("written.cfg")
    seconds = time.process_time() - begun
    size = plain.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"rate": size / seconds, "peak_mb": peak, "megabytes": size}))
    raise SystemExit


def _plain(word: str) -> str:
    return f"{float(word):.16f}" if "e-" in word else word


def _some(megabytes: float, atoms: int) -> Iterator[Configuration]:
    rng = np.random.default_rng(1)
    some = [
        Configuration(
            types=np.zeros(atoms, dtype=np.int64),
            positions=rng.random((atoms, 3)) * 10,
            cell=np.diag(rng.random(3) * 10 + 1),
            energy=float(rng.normal()),
            forces=rng.normal(size=(atoms, 3)),
            plus_stress=rng.normal(size=6),
            features=(("MV_grade", "1.5"),),
        )
        for _ in range(_SAMPLES)
    ]
    size = sum(len(format_cfg(configuration)) for configuration in some) / _SAMPLES
    for number in range(int(megabytes * 1e6 / size)):
        yield some[number % _SAMPLES]


if __name__ == "__main__":
    main()
