"""What SLURM says, garbled: understood, or refused in words; never expanded into memory, never another job's state."""
# ruff: noqa: PT017 — that an error is allowed is the point: it need not come, but if so in these words

import contextlib
import math

import pytest
from hostile import damaged, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError
from pilot.slurm import parse
from pilot.slurm.allocation import from_environment
from pilot.slurm.hostlist import MOST, counts, gpu_ids, hosts

C = parse.COLUMN
SQUEUE = (
    f"123{C}RUNNING{C}1763720000{C}1763723600{C}n[01-03]{C}None{C}pilot-x-abc{C}/home/x/a b{C}(null)\n"
    f"124{C}PENDING{C}N/A{C}N/A{C}{C}Dependency{C}pilot-x-abc{C}/home/x{C}chain\n"
)
STATES = f"123{C}RUNNING\n124{C}COMPLETED\n"
SHOW_JOB = (
    "JobId=123 JobName=pilot-x UserId=x(1) GroupId=x(1) JobState=RUNNING Reason=None Restarts=1 BatchFlag=1 "
    "StartTime=1763720000 EndTime=1763723600 NodeList=n[01-03] BatchHost=n01 WorkDir=/home/x\n"
)
RESERVATIONS = (
    "ReservationName=repair StartTime=1763720000 EndTime=1763723600 Nodes=n[1-4] Flags=MAINT,SPEC_NODES\n"
    "ReservationName=all StartTime=1763720000 EndTime=1763723600 Nodes=ALL Flags=MAINT,ALL_NODES\n"
)
SINFO = f"main{C}up{C}1-00:00:00{C}3{C}8{C}8000{C}gpu:2\nlong{C}up{C}infinite{C}1{C}72+{C}1000{C}(null)\n"
ENVIRONMENT = {
    "SLURM_JOB_ID": "123",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_JOB_CPUS_PER_NODE": "8(x2),4",
    "SLURM_MEM_PER_NODE": "8000",
    "SLURM_RESTART_COUNT": "1",
    "SLURM_JOB_START_TIME": "1763720000",
    "SLURM_JOB_END_TIME": "1763723600",
    "SLURM_JOB_GPUS": "0-1",
}


def local(text: str) -> float:
    raise ValueError(text)


def said(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@fuzzed
@given(damaged(SQUEUE.encode()))
def test_squeue(data: bytes) -> None:
    try:
        for job in parse.jobs(said(data), local):
            assert job.job_id.isascii()
            assert int(job.job_id) >= 0
            assert all(t is None or math.isfinite(t) for t in (job.starts_at, job.ends_at))
            assert len(job.nodes) <= MOST
    except ValueError:
        pass


@fuzzed
@given(damaged(STATES.encode()))
def test_states(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(state for state in parse.states(said(data)).values())


@fuzzed
@given(damaged(SHOW_JOB.encode()))
def test_scontrol_show_job(data: bytes) -> None:
    try:
        job = parse.job_status(said(data), "123", local)
    except ValueError:
        return
    assert job.job_id == "123"
    assert job.restarts >= 0
    assert job.ends_at is None or math.isfinite(job.ends_at)


@pytest.mark.parametrize("name", ["a JobState=COMPLETED", "a EndTime=1", "a Restarts=9", "a NodeList=n9 BatchFlag=0"])
def test_a_job_that_is_called_like_an_answer_is_not_believed(name: str) -> None:
    with pytest.raises(ValueError, match="twice"):
        parse.job_status(SHOW_JOB.replace("pilot-x", name), "123", local)


@fuzzed
@given(damaged(RESERVATIONS.encode()))
def test_reservations(data: bytes) -> None:
    try:
        for window in parse.maintenance(said(data), local):
            assert math.isfinite(window.start)
            assert math.isfinite(window.end)
    except ValueError:
        pass


@fuzzed
@given(damaged(SINFO.encode()))
def test_sinfo(data: bytes) -> None:
    try:
        for partition in parse.partitions(said(data)):
            assert min(partition.nodes, partition.cpus, partition.memory_mib, partition.limit_s or 0) >= 0
    except ValueError:
        pass


@fuzzed
@given(st.text(), damaged(b"Submitted\n123;cluster\n"), damaged(b"ClusterName = abc\n"))
def test_short_answers(text: str, sbatch: bytes, config: bytes) -> None:
    for data in (text, said(sbatch), said(config)):
        for read in (parse.job_id, parse.cluster_name, parse.duration):
            with contextlib.suppress(ValueError):
                read(data)
        assert all(word.isascii() for word in parse.mpi_types(data))
        parse.unreached_nodes(f"srun: error: Node failure on {data}")


@pytest.mark.parametrize(
    "text",
    [
        "n[0-999999999]",
        "n[1-1000][1-1000][1-1000]",
        "n[[1-2]]",
        "n[1-2",
        "n1-2]",
        "n[" + "[" * 10_000 + "1" + "]" * 10_000,
        "n" + "[1]" * 10_000,
        "n[1-99999]" + "x" * 10_000,
        "n[" + "0" * 4000 + "1-99999]",
        "n[3-1]",
        "n[-1]",
        "n[1,,2]",
        "n1,,n2",
        "n1;rm",
        "n1 n2",
        "n$(x)",
        "n[１-３]",
        "../n1",
    ],
)
def test_hostlists_that_explode_or_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hosts|range"):
        hosts(text)


@pytest.mark.parametrize("text", ["0-99999," * 1000 + "1", "0-999999999", "９", "1-", "0-" + "9" * 5000])
def test_gpus_that_explode_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"GPUs|range"):
        gpu_ids(text)


@pytest.mark.parametrize("text", ["8(x999999999)", "4000000000", "8(x-1)", "8(x2", "-8", "8(x2)(x3)", "９", "9" * 5000])
def test_cores_that_explode_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="numbers per node"):
        counts(text)


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z]", fullmatch=True)
ranges = st.tuples(st.integers(0, 500), st.integers(0, 40), st.integers(1, 4))


@fuzzed
@given(st.lists(st.tuples(names, st.lists(ranges, max_size=3)), min_size=1, max_size=4))
def test_hostlists_are_expanded_as_they_were_folded(parts: list[tuple[str, list[tuple[int, int, int]]]]) -> None:
    text, expected = [], []
    for name, pieces in parts:
        folded = ",".join(f"{first:0{width}}-{first + more:0{width}}" for first, more, width in pieces)
        text.append(f"{name}[{folded}]" if pieces else name)
        numbers = [f"{k:0{width}}" for first, more, width in pieces for k in range(first, first + more + 1)]
        expected += [name + number for number in numbers] if pieces else [name]
    assert hosts(",".join(text)) == tuple(expected)


@fuzzed
@given(st.data(), st.sampled_from(sorted(ENVIRONMENT)))
def test_the_environment_of_an_allocation(data: st.DataObject, name: str) -> None:
    text = data.draw(st.one_of(damaged(ENVIRONMENT[name].encode()), st.binary())).decode("utf-8", "replace")
    try:
        found = from_environment(ENVIRONMENT | {name: text})
    except InputError as error:
        assert "SLURM_" in error.where
        return
    if found is None:
        assert (name, text) == ("SLURM_JOB_ID", "")
        return
    assert len(set(found.node_names)) == len(found.nodes) <= MOST
    assert found.restart >= 0
    assert all(t is None or 0 <= t < 1e16 for t in (found.starts_at, found.ends_at))
    for node in found.nodes:
        assert node.cpus is None or 1 <= node.cpus <= 1_000_000
        assert node.memory_mb is None or node.memory_mb >= 1
        assert node.gpus is None or all(number >= 0 for number in node.gpus)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SLURM_JOB_NODELIST", "n1,n1,n2"),
        ("SLURM_MEM_PER_NODE", "-8000"),
        ("SLURM_MEM_PER_NODE", "9" * 400),
        ("SLURM_JOB_END_TIME", "nan"),
        ("SLURM_JOB_END_TIME", "1e400"),
        ("SLURM_RESTART_COUNT", "-1"),
        ("SLURM_RESTART_COUNT", "1_0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(name: str, text: str) -> None:
    with pytest.raises(InputError, match=name):
        from_environment(ENVIRONMENT | {name: text})
