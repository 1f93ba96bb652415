"""docs/reference/pilot-toml.md, made from the models; `pilot config-docs` prints it."""

_HEAD = """\
# pilot.toml

*Made by `pilot config-docs > docs/reference/pilot-toml.md` from the descriptions in `pilot/*tables.py`: change them
there.*

A campaign folder is a folder that holds a `pilot.toml`. It is [TOML](https://toml.io). An empty one is enough for
what [`pilot add`](../commands/add.md) puts in; a training campaign needs the tables `[campaign]`, `[crystal]`,
`[[stages]]` (or `[study]`), `[label]` with the table of its engine, and `[train]`. `pilot init` writes one with all of
this as comments; [`pilot doctor`](../commands/doctor.md) checks it. An unknown key is a mistake and is reported with
the nearest key that there is.

Times are numbers of seconds, or text: `"90 s"`, `"10 min"`, `"1.5 h"`, `"2 d"`, `"1:30:00"`.
Paths are relative to the folder of `pilot.toml`.
"""


def config_docs() -> None:
    """Print docs/reference/pilot-toml.md: every key of pilot.toml."""
    print(config_page(), end="")


def config_page() -> str:
    """The text of docs/reference/pilot-toml.md."""
    # pydantic is not imported before it is needed: the help of all commands imports this module
    from pilot.cli.config_keys import all_tables

    lines = [_HEAD]
    for table in all_tables():
        lines += [
            f"## `{table.heading}`",
            "",
            table.about,
            "",
            "| key | takes | default | meaning |",
            "|---|---|---|---|",
        ]
        for key in table.keys:
            default = (
                f"**required** {key.unless}".strip() if key.required else f"`{key.default}`" if key.default else "–"
            )
            lines.append(f"| `{key.name}` | {_cell(key.takes)} | {_cell(default)} | {_cell(key.meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
