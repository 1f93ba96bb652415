"""A real browser without a window, for tests of pages: what it says, what it asks for, how long it takes.

Spoken to over two pipes in its own protocol (chromedevtools.github.io/devtools-protocol): nothing else is needed.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_S = 60.0
#: from the beginning until what is seen was painted, and what the page is then
_ASK = """new Promise(tell => requestAnimationFrame(() => setTimeout(() => tell(JSON.stringify({
  ms: performance.now(),
  wide: document.documentElement.scrollWidth - innerWidth,
  high: document.documentElement.scrollHeight,
  drawn: [...document.querySelectorAll(".plot svg")].filter(one => one.getBoundingClientRect().height > 50).length,
  dead: [...document.querySelectorAll("nav a")].filter(one => !document.querySelector(one.hash)).length,
})), 0)))"""


@dataclass(frozen=True, slots=True)
class Visit:
    """What happened when a page was opened.

    Attributes:
        loaded_ms: from the beginning until it was painted.
        messages: errors and warnings that the browser has for its author.
        requests: addresses that were asked for, other than the page itself and what is in it.
        drawn: pictures that have a height.
        dead: entries of the contents that lead nowhere.
        overflow: pixels by which the page is wider than the window.
    """

    loaded_ms: float
    messages: list[str]
    requests: list[str]
    drawn: int
    dead: int
    overflow: float


def find_browser() -> str | None:
    """One that is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass(slots=True)
class Browser:
    """One that runs; see :func:`opened`."""

    to: int
    back: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _unread: bytes = b""
    _number: int = 0
    _session: str = ""

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method, and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard["error"]
                found: dict[str, Any] = heard["result"]
                return found

    def begin(self) -> None:
        """Open an empty page and listen to it."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for room in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{room}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)

    def visit(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Visit:
        """Open a page."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media="", features=scheme)
        self.events.clear()
        loader = self.ask("Page.navigate", url=page.absolute().as_uri())["loaderId"]
        loaded = {"name": "load", "loaderId": loader}
        while not any(loaded.items() <= event["params"].items() for event in self.events):
            self._hear()
        answer = self.ask("Runtime.evaluate", expression=_ASK, awaitPromise=True)
        found = json.loads(answer["result"]["value"])
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return Visit(
            loaded_ms=found["ms"],
            messages=[said for event in self.events if (said := _said(event))],
            requests=[one for one in asked if not one.startswith("data:") and one != page.absolute().as_uri()],
            drawn=found["drawn"],
            dead=found["dead"],
            overflow=found["wide"],
        )

    def picture(self, target: Path) -> None:
        """The whole page as it is seen."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(answer["data"]))

    def printed(self, target: Path) -> None:
        """The page on paper, as PDF."""
        answer = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        target.write_bytes(base64.b64decode(answer["data"]))

    def _hear(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self.back], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.back, 1 << 20) if ready else b""
            assert piece, "the browser says nothing any more"
            self._unread += piece
        message, self._unread = self._unread.split(b"\0", 1)
        heard: dict[str, Any] = json.loads(message)
        if "method" in heard:
            self.events.append(heard)
        return heard


def _said(event: dict[str, Any]) -> str:
    method, about = event["method"], event["params"]
    if method == "Runtime.exceptionThrown":
        return str(about["exceptionDetails"]["text"])
    if method == "Runtime.consoleAPICalled" and about["type"] in {"error", "warning", "assert"}:
        return str(about["args"])
    if method == "Log.entryAdded" and about["entry"]["level"] in {"error", "warning"}:
        return str(about["entry"]["text"])
    return ""


@contextlib.contextmanager
def opened(browser: str) -> Iterator[Browser]:
    """A browser with a profile of its own, which is ended and forgotten afterwards."""
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    # it reads on 3 and writes on 4: ours are to be neither
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (their_in, their_out)]

    def connect() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as home:
        argv = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--disable-extensions", "--hide-scrollbars"),
            *("--remote-debugging-pipe", f"--user-data-dir={home}"),
        ]
        env = os.environ | {"HOME": home}
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            argv, env=env, stdin=quiet, stdout=quiet, stderr=quiet, close_fds=False, preexec_fn=connect
        )
        for end in (their_in, their_out, *high):
            os.close(end)
        try:
            found = Browser(our_out, our_in)
            found.begin()
            yield found
        finally:
            process.terminate()
            process.wait(30)
            os.close(our_out)
            os.close(our_in)
