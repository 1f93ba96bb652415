"""The pilot.toml that `pilot init` writes from nothing: every key, explained, as comments."""

import textwrap

from pilot.cli.config_keys import Key, TableOfKeys, all_tables

_WIDTH = 100
_HEAD = """\
# pilot.toml: what is done in this folder, and how.
#
# All of it is commented out. As it stands, `pilot run` runs what `pilot add` puts in, and nothing else is needed.
#
# For a training campaign take away the "#" (not the "# " of the explanations) in front of [campaign], [crystal],
# [[stages]], [label], [label.qe] or [label.ase], and [train], and of the keys in them that are marked REQUIRED, and
# fill those in. Every other key shows its default: leave it, or take its "#" away and change it. `pilot doctor`
# says what is wrong or missing. Units: Å, eV, K, bar, MB; times are like "90 s", "10 min", "1.5 h".
"""


def config_text() -> str:
    """The text of the file."""
    return "\n".join([_HEAD, *(_table(table) for table in all_tables())])


def _table(table: TableOfKeys) -> str:
    lines = [_rule(table.heading), *_comment(table.about), f"#{table.heading}", ""]
    for key in table.keys:
        lines += [*_comment(_explanation(key)), f"#{key.name} = {key.default or key.example}", ""]
    return "\n".join(lines)


def _rule(heading: str) -> str:
    return f"# ---- {heading} ".ljust(_WIDTH, "-")


def _explanation(key: Key) -> str:
    takes = f"{key.meaning} ({key.takes})"
    if key.required:
        return f"REQUIRED{' ' if key.unless else ''}{key.unless}: {takes}"
    return takes if key.default else f"{takes}; not set by default, for example:"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
