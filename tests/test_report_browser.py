"""The page of a report in a real browser, where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_browser, opened
from recorded_campaign import Size, record_campaign

from pilot.report.writing import write_report

_FOUND = find_browser()
pytestmark = pytest.mark.skipif(_FOUND is None, reason="no Chromium here: nobody has looked at the report's page")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened(_FOUND or "") as window:
        yield window


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    size = Size(generations=(3, 2), labels=3, sampled=8)
    folder = record_campaign(root / "recorded", size, name="<script>console.error('not safe')</script>")
    return write_report(folder, root / "report.html", png=False).page


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_page_opens_without_errors_and_without_a_network(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    seen = browser.visit(page, width=width, dark=dark)
    assert seen.messages == []
    assert seen.requests == []
    assert seen.drawn == len(list(page.with_suffix("").glob("*.svg")))
    assert seen.dead == 0
    assert seen.overflow <= 0


def test_the_page_can_be_printed(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.visit(page)
    browser.printed(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_browser_tells_of_errors_and_requests(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<img src="picture.png"><script>console.error("oh"); nothing()</script>')
    seen = browser.visit(page)
    assert len(seen.messages) >= 2
    assert seen.requests == [(tmp_path / "picture.png").as_uri()]
