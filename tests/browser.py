"""A real browser without a window, for tests of pages: what it says, what it asks for, how long it takes."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html import unescape
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_S = 90
#: added to a copy of the page: when it was loaded and painted
_ASK = """<script>addEventListener("load", () => requestAnimationFrame(() => setTimeout(() => {
  document.documentElement.dataset.ms = performance.now();
  document.documentElement.dataset.asked = performance.getEntriesByType("resource").map(entry => entry.name).join(" ");
  document.documentElement.dataset.wide = document.documentElement.scrollWidth - innerWidth;
  document.documentElement.dataset.drawn = [...document.querySelectorAll(".plot svg")]
    .filter(svg => svg.getBoundingClientRect().height > 50).length; }, 0)))</script>"""


@dataclass(frozen=True, slots=True)
class Visit:
    """What happened when a page was opened.

    Attributes:
        loaded_ms: from the beginning until all was painted.
        messages: of the console: errors and warnings.
        requests: addresses that were asked for, other than the page itself.
        drawn: pictures that have a height.
        overflow: pixels by which the page is wider than the window.
    """

    loaded_ms: float
    messages: list[str]
    requests: list[str]
    drawn: int
    overflow: float


def find_browser() -> str | None:
    """One that is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def visit(browser: str, page: Path, *, width: int = 1200) -> Visit:
    """Open a page, and wait until it is painted."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as scratch:
        home = Path(scratch)
        copy = home / "page.html"
        copy.write_text(page.read_text().replace("</body>", f"{_ASK}</body>"))
        argv = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-extensions", "--enable-logging=stderr", f"--window-size={width},900"),
            # whatever is asked for is not found, and that is an error in the console
            *(f"--user-data-dir={home / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--dump-dom", copy.as_uri()),
        ]
        env = os.environ | {"HOME": scratch}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=True, env=env)
    found = dict(re.findall(r'data-(ms|wide|drawn|asked)="([^"]*)"', done.stdout[:20_000]))
    asked = unescape(found["asked"]).split()
    return Visit(
        loaded_ms=float(found["ms"]),
        messages=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        requests=[address for address in asked if not address.startswith("data:")],
        drawn=int(found["drawn"]),
        overflow=float(found["wide"]),
    )
