"""What `pilot report` takes for a large campaign that is recorded but was never run.

python benchmarks/report.py --place FOLDER [--generations 60 --labels 20000]
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browser import find_browser, opened
from recorded_campaign import Size, record_campaign

from db.engine import open_reader
from db.schema import attempts, labels


def main() -> None:
    """Make the campaign, write its report as a process of its own, open it in a browser if there is one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--generations", type=int, default=60)
    options.add_argument("--labels", type=int, default=20_000)
    options.add_argument("--nodes", type=int, default=8)
    options.add_argument("--place", type=Path, required=True, help="an empty folder is made here")
    options.add_argument("--keep", action="store_true", help="leave it there")
    given = options.parse_args()
    stages = 4
    each = given.generations // stages
    size = Size(
        generations=(each,) * stages,
        labels=given.labels // (stages * each + 1),
        explorations=8,
        nodes=given.nodes,
        cores=128,
        allocations=14,
        sampled=50,
        parity=min(given.labels, 20_000),
    )
    began = time.monotonic()
    folder = record_campaign(given.place / "recorded", size, name="60 generations")
    with open_reader(folder.copy) as connection:
        counts = [len(connection.execute(table.select()).all()) for table in (attempts, labels)]
    print(f"{counts[0]} attempts, {counts[1]} labels, made in {time.monotonic() - began:.0f} s", flush=True)
    try:
        _measure(folder.root)
    finally:
        if not given.keep:
            shutil.rmtree(folder.root)


def _measure(root: Path) -> None:
    for options in ((), ("--png",)):
        began = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-P", "-m", "pilot", "report", *options], cwd=root, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        what = " ".join(("pilot report", *options))
        print(f"{what}: {time.monotonic() - began:.1f} s, {cpu:.1f} s of CPU, at most {after.ru_maxrss / 1000:.0f} MB")
    page = root / "results" / "report.html"
    files = list((root / "results" / "report").iterdir())
    print(f"page {page.stat().st_size / 1e6:.2f} MB; beside it {len(files)} files")
    print(f"largest: {max(files, key=lambda path: path.stat().st_size).name}")
    browser = find_browser()
    if browser is None:
        print("no browser here to open it in")
        return
    with opened(browser) as window:
        for _ in range(3):
            seen = window.visit(page)
            print(f"opened and painted in {seen.loaded_ms:.0f} ms, {len(seen.requests)} requests ({browser})")


if __name__ == "__main__":
    main()
