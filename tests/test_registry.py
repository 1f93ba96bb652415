"""Engines by name."""

import subprocess
import sys

import pytest

from db.errors import InputError
from tasks.engines import qe_restart
from tasks.registry import MODULES, RESUMING, engine


@pytest.mark.parametrize("name", ["qe", "ase", "command"])
def test_an_engine_knows_its_name(name):
    assert engine(name).name == name


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError) as error:
        engine("lamps")
    assert 'did you mean "lammps"' in error.value.what
    assert all(name in error.value.next_step for name in MODULES)
    with pytest.raises(InputError, match='there is no engine "xyzzy"'):
        engine("xyzzy")


def test_the_registry_and_the_command_engine_import_nothing_heavy():
    code = (
        "import sys, tasks.registry; tasks.registry.engine('command');"
        "print([m for m in ('numpy', 'ase', 'lammps', 'motep', 'mpi4py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_can_go_on_knows_itself_after_how_long() -> None:
    assert RESUMING["qe"] == qe_restart.WORTH_S
