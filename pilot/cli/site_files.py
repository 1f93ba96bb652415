"""The files of a campaign folder that a site decides: pilot.sh, and [run] of pilot.toml. Texts only."""

import hashlib
import re
import shlex
import tomllib
from pathlib import Path

from db.errors import InputError
from pilot.cli.config_keys import toml
from pilot.cli.sites import Site, frame

#: The batch script in a campaign folder.
SCRIPT = "pilot.sh"
#: What stands in a script where only the user knows the value.
PLACEHOLDER = "CHANGE_ME"
_FIELD = re.compile(r"@([A-Z_]+)@")
_ACCOUNT = re.compile(r"[\w.+:-]+")
#: Longer names of folders are cut in names of jobs.
_NAME_LENGTH = 40


def job_name(root: Path) -> str:
    """The name of the jobs of a folder: no other folder has it, so that singleton means this folder."""
    place = root.resolve()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name)[:_NAME_LENGTH].strip("-.") or "folder"
    return f"pilot-{readable}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"


def check_account(account: str) -> str:
    """The account as it was typed.

    Raises:
        InputError: it cannot be one.
    """
    if not _ACCOUNT.fullmatch(account):
        raise InputError(f"{account!r} is not the name of an account", next_step="--account FUA39_xxx, say")
    return account


def script_text(site: Site, root: Path, account: str | None, activation: str) -> str:
    """The batch script of a folder.

    Args:
        site: where it runs.
        root: the campaign folder.
        account: whose budget pays; None: the user must fill it in.
        activation: what makes `pilot` known to the shell, see :func:`activation_of`.
    """
    unverified = "\n".join(f"- {fact}" for fact in site.unverified)
    limits = f"{site.limits.strip()}\n\nFrom the site's documentation, 2024–2026."
    limits += f" Not verified:\n{unverified}" if unverified else ""
    values = {
        "TITLE": site.title,
        "SITE": site.name,
        "LIMITS": "\n".join(f"# {line}".rstrip() for line in limits.splitlines()),
        "ACCOUNT": account or PLACEHOLDER,
        "HEADER": site.header.strip(),
        "JOB_NAME": job_name(root),
        "PREPARE": site.prepare.strip(),
        "ENVIRONMENT": activation,
    }
    return _FIELD.sub(lambda match: values[match[1]], frame())


def activation_of(prefix: Path) -> str:
    """The lines that make the Python environment at ``prefix`` the script's own."""
    about = "# the Python environment in which pilot is installed: the one in which `pilot init` was typed"
    activate = prefix / "bin" / "activate"
    if activate.is_file():
        command = f"source {shlex.quote(str(activate))}"
    else:
        command = f'export PATH={shlex.quote(str(prefix / "bin"))}:"$PATH"'
    return f"{about}\n{command}"


def with_run_keys(text: str, site: Site) -> str:
    """The text of a pilot.toml with the keys that the site wants in [run]; all else stays as it is."""
    for name, value in site.run.items():
        line = f"{name} = {toml(value)}".ljust(30) + f"# for {site.title}"
        text = _with_key(text, name, line)
    return text


def missing_keys(config: Path, site: Site) -> list[str]:
    """The keys that the site wants in [run] and that this pilot.toml says otherwise or not at all."""
    try:
        run = tomllib.loads(config.read_text()).get("run", {})
    except (OSError, ValueError):
        # `pilot doctor` says what is wrong with it
        run = {}
    return [f"{name} = {toml(value)}" for name, value in site.run.items() if run.get(name) != value]


def _with_key(text: str, name: str, line: str) -> str:
    """The key in [run], in place of what stands there, commented or not; the table is made if there is none."""
    heading = re.search(r"(?m)^#?\[run\][^\n]*\n", text)
    if heading is None:
        return f"{text.rstrip()}\n\n[run]\n{line}\n"
    before, after = text[: heading.start()], text[heading.end() :]
    # [run] ends where the next table begins, commented or not
    end = re.search(r"(?m)^#?\[", after)
    body, rest = (after, "") if end is None else (after[: end.start()], after[end.start() :])
    given = re.compile(rf"(?m)^#?{re.escape(name)} *=[^\n]*")
    body = given.sub(lambda _: line, body, count=1) if given.search(body) else f"{line}\n{body}"
    return f"{before}{heading[0].lstrip('#')}{body}{rest}"
