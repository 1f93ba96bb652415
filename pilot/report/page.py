"""The page: one HTML file that needs nothing else. Whatever is not ours is escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from pilot.report.figure import Figure, Table
from pilot.report.style import CSS
from pilot.report.summary import Head

Item = Figure | Table


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the page with a heading of its own."""

    name: str
    title: str
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows.

    Attributes:
        written: a line about when, where and by what it was written.
        pictures: name of a figure → its SVG, ready to stand in a page.
        folder: in which the files of the figures lie, relative to the page.
        endings: of these files.
        texts: long texts at the end: title and text.
        remarks: what the reader should know before all else.
    """

    head: Head
    written: str
    chapters: Sequence[Chapter]
    pictures: dict[str, str]
    folder: str
    endings: Sequence[str]
    texts: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = field(default_factory=tuple)


def html(page: Page) -> str:
    """The page as text."""
    chapters = "\n".join(_chapter(page, chapter) for chapter in page.chapters)
    texts = "\n".join(
        f'<section class="item"><details><summary>{escape(title)}</summary>\n'
        f"<pre>{escape(text)}</pre></details></section>"
        for title, text in page.texts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="pilot report">
<link rel="icon" href="data:,">
<title>{escape(page.head.name)}: {escape(page.head.state)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
{_head(page)}
{_contents(page)}
</header>
<main>
{chapters}
{texts}
</main>
<footer>Every figure and table lies beside this page as data and as a picture, in the folder
{escape(page.folder)}/. Energies in meV and eV, lengths in Å, grades γ without unit.</footer>
</body>
</html>
"""


def _head(page: Page) -> str:
    tone = {True: " good", False: " bad", None: ""}[page.head.good]
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.head.facts)
    remarks = "".join(f'<p class="written">{escape(remark)}</p>' for remark in page.remarks)
    return (
        f"<h1>{escape(page.head.name)}</h1>\n"
        f'<p class="state{tone}">{escape(page.head.state)}</p> <p class="why">{escape(page.head.why)}</p>\n'
        f'<dl class="facts">{facts}</dl>\n<p class="written">{escape(page.written)}</p>{remarks}'
    )


def _contents(page: Page) -> str:
    lines = []
    for chapter in page.chapters:
        links = " ".join(
            f'<a href="#{item.name}"{" class=" + chr(34) + "lacks" + chr(34) if item.lacks else ""}>'
            f"{escape(item.title)}</a>"
            for item in chapter.items
        )
        lines.append(f"<p><b>{escape(chapter.title)}</b> {links}</p>")
    return f'<nav aria-label="Contents">{"".join(lines)}</nav>'


def _chapter(page: Page, chapter: Chapter) -> str:
    items = "\n".join(_item(page, item) for item in chapter.items)
    return f'<h2 id="{chapter.name}">{escape(chapter.title)}</h2>\n{items}'


def _item(page: Page, item: Item) -> str:
    head = f'<section class="item" id="{item.name}"><h3>{escape(item.title)}</h3>\n'
    if item.lacks:
        return f'{head}<p class="lacks">Nothing to show yet: {escape(item.lacks)}.</p></section>'
    endings = page.endings if isinstance(item, Figure) else ("csv",)
    links = " ".join(
        f'<a href="{escape(page.folder, quote=True)}/{item.name}.{ending}">{ending.upper()}</a>' for ending in endings
    )
    says = f'<p class="says">{escape(item.says)} <span class="files">{links}</span></p>\n'
    if isinstance(item, Table):
        return f"{head}{says}{_table(item)}</section>"
    return f'{head}{says}<div class="plot">{page.pictures[item.name]}</div></section>'


#: from here on a cell is a text that may be folded
_LONG = 24
_NUMBER = re.compile(r"[+−-]?\d+(\.\d+)?(e[+-]?\d+)?( [(±].*)?")


def _table(table: Table) -> str:
    kinds = [_kind([row[place] for row in table.shown]) for place in range(len(table.headings))]
    head = "".join(
        f"<th{kind.replace('long', '')}>{escape(word)}</th>" for word, kind in zip(table.headings, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.shown
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _kind(cells: Sequence[str]) -> str:
    """Numbers stand to the right, long texts are folded."""
    if any(len(cell) > _LONG for cell in cells):
        return ' class="long"'
    if all(cell in {"", "–"} or _NUMBER.fullmatch(cell) for cell in cells):
        return ' class="n"'
    return ""
