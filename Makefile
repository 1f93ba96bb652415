# Two commands for a newcomer: `make demo` and `make test`. Both install what they need and can be run twice.
#
# On Debian and Ubuntu the programs come from apt (as root, or with sudo). Elsewhere install Quantum ESPRESSO
# (pw.x, ld1.x) and Open MPI 4 (mpirun) in your own way, so that they are on PATH, and type `make demo` again: what is
# on PATH already is not installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DEMO := demo
# so many test files run side by side; each brings its own clusters and folders
SIDE_BY_SIDE := 2
# of `make chaos`: so many faults, the SEED that chooses them, more options: CHAOS="--only 'node gone,kill manager'"
SEED := 1
FAULTS := 200
CHAOS :=
# each MPI in an environment of its own, as each brings an mpirun; for tests only
MPIS := .venv-mpi
openmpi5 := openmpi>=5,<6
mpich := mpich>=5
impi := impi-rt>=2021

.PHONY: help demo test chaos engines mpis slurm strace clean

help:
	@echo "make demo    a small-cell training campaign for lithium, with real engines, about 10 minutes"
	@echo "make test    the linters, the types and all tests"
	@echo "make chaos   200 faults against a campaign on a cluster of its own, half an hour (SEED=1 FAULTS=200)"
	@echo "make clean   remove the demo and the environment"

demo: $(VENV)/.installed engines
	@[ -f $(DEMO)/pilot.toml ] || $(BIN)/pilot init $(DEMO) --example li-laptop
	@cd $(DEMO)/pseudo && { [ -f Li.pbesol-s1.UPF ] || ld1.x < Li.ld1.in > ld1.out; }
	$(BIN)/pilot run --folder $(DEMO)
	$(BIN)/pilot status --folder $(DEMO)
	$(BIN)/pilot export --folder $(DEMO)
	@echo
	@echo "The results are in $(DEMO)/results; 'pilot show' and 'pilot log' tell of each task:"
	@echo "    $(BIN)/pilot show 1 --folder $(DEMO)"

# at least 200 faults against a real campaign on a real cluster, half an hour; docs/chaos.md
chaos: $(VENV)/.tested engines slurm
	$(BIN)/python tests/chaos/chaos.py --seed $(SEED) --faults $(FAULTS) $(CHAOS)

test: $(VENV)/.tested engines mpis slurm strace
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(SIDE_BY_SIDE) --dist loadfile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: PYTHON=/path/to/python3.12 make demo"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	    { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

engines:
	@if command -v pw.x >/dev/null && command -v ld1.x >/dev/null && command -v mpirun >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	    echo "pw.x, ld1.x (Quantum ESPRESSO) or mpirun (Open MPI) is not on PATH, and there is no apt-get here:"; \
	    echo "install both (conda install -c conda-forge qe openmpi; module load ...) and type make again"; exit 1; fi; \
	$(SUDO) apt-get update && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
	    quantum-espresso quantum-espresso-data openmpi-bin

# an MPI that cannot be had here is no mistake: its tests are skipped, and say so
mpis: $(MPIS)/openmpi5/.installed $(MPIS)/mpich/.installed $(MPIS)/impi/.installed

$(MPIS)/%/.installed: | $(VENV)/bin/python
	@$(BIN)/python -m venv $(MPIS)/$* && \
	    $(MPIS)/$*/bin/python -m pip install --quiet --disable-pip-version-check '$($*)' mpi4py && touch $@ || \
	    echo "no wheel of $($*) could be installed: the tests of that MPI are skipped"

# a real cluster for tests: they start one of their own on this machine, and leave /etc/slurm as it is. Without systemd
# a package may fail to start its daemon; nobody needs that one, so what counts is that the programs are there
slurm:
	@there() { PATH="$$PATH:/usr/sbin:/sbin"; \
	    command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; }; \
	if there >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	    echo "slurmctld, slurmd, sbatch or munged is not on PATH, and there is no apt-get here:"; \
	    echo "the tests on a real SLURM cluster are skipped until you install SLURM and MUNGE"; exit 0; fi; \
	$(SUDO) apt-get update && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; \
	there >/dev/null || { echo "slurm-wlm and munge could not be installed: see above"; exit 1; }

# lets calls to the system fail, or take long: a disk that is full, broken or slow; without it those tests are skipped
strace:
	@if command -v strace >/dev/null || ! command -v apt-get >/dev/null; then exit 0; fi; \
	$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends strace

clean:
	rm -rf $(VENV) $(MPIS) $(DEMO)
