"""What SLURM's programs print is read as meant; nonsense is a ValueError and nothing else."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.slurm import parse
from pilot.slurm.hostlist import MOST, counts, gpu_ids, hosts
from pilot.slurm.parse import COLUMN, Maintenance, Partition


def local(text: str) -> float:
    """A zone in which it is always the first second of the hour that the text names."""
    return float(text[11:13]) * 3600


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n[1-3,7]", ("n1", "n2", "n3", "n7")),
        ("n[1-2],m05", ("n1", "n2", "m05")),
        ("r[01-02]c[1-2]", ("r01c1", "r01c2", "r02c1", "r02c2")),
        ("n[08-11]", ("n08", "n09", "n10", "n11")),
        ("n[099-101]", ("n099", "n100", "n101")),
        ("node-[1,3]-ib", ("node-1-ib", "node-3-ib")),
        ("lrdn3456.leonardo.local", ("lrdn3456.leonardo.local",)),
        ("", ()),
        ("(null)", ()),
        ("None assigned", ()),
    ],
)
def test_hostlists(text: str, names: tuple[str, ...]) -> None:
    assert hosts(text) == names


@pytest.mark.parametrize(
    "text", ["n[1-", "n]1[", "n[3-1]", "n[1-3", "a b", "n[x]", "n[]", ",", "n[1-9999999]", "n[1][2", "💥"]
)
def test_what_is_no_hostlist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|more than"):
        hosts(text)


def test_a_hostlist_of_more_nodes_than_there_are_anywhere_costs_no_memory() -> None:
    with pytest.raises(ValueError, match=str(MOST)):
        hosts("n[1-99999]m[1-99999]")


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=50, unique=True), st.integers(1, 5))
def test_a_list_of_single_numbers_keeps_its_order_and_its_zeros(numbers: list[int], width: int) -> None:
    written = [str(number).zfill(width) for number in numbers]
    assert hosts(f"n[{','.join(written)}]") == tuple(f"n{number}" for number in written)


@given(st.text(max_size=40))
def test_no_text_makes_a_reader_of_lists_fail_otherwise(text: str) -> None:
    readers: list[Callable[[str], object]] = [hosts, counts, gpu_ids, parse.duration, parse.job_id, parse.cluster_name]
    for read in readers:
        with contextlib.suppress(ValueError):
            read(text)


@given(st.text(max_size=200))
def test_no_text_makes_a_reader_of_answers_fail_otherwise(text: str) -> None:
    text = f"ReservationName=x Flags=MAINT Nodes=n1 {text}\n{text}"
    readers: list[Callable[[str], object]] = [
        lambda text: parse.maintenance(text, local),
        lambda text: parse.jobs(text, local),
        lambda text: parse.job_status(text, "1", local),
        parse.states,
        parse.partitions,
    ]
    for read in readers:
        with contextlib.suppress(ValueError):
            read(text)
    parse.fields(text)
    parse.mpi_types(text)


def test_counts_per_node() -> None:
    assert counts("72(x2),36") == (72, 72, 36)
    assert counts("8") == (8,)
    for text in ("", "8(x", "x2", "8(x99999999999)", "8,,8"):
        with pytest.raises(ValueError, match="not a list of numbers"):
            counts(text)


def test_gpus() -> None:
    assert gpu_ids("0,1,3") == (0, 1, 3)
    assert gpu_ids("0-3") == (0, 1, 2, 3)
    assert gpu_ids("[0-1,3]") == (0, 1, 3)
    assert gpu_ids("NoDevFiles") == gpu_ids("") == ()
    for text in ("0-999999999999", "3-1", "a"):
        with pytest.raises(ValueError, match="not a range"):
            gpu_ids(text)
    with pytest.raises(ValueError, match="GPU-8f3"):
        gpu_ids("GPU-8f3a")


def test_moments() -> None:
    assert parse.moment("1795261391", local) == 1795261391.0
    assert parse.moment("2026-11-21T14:00:00", local) == 14 * 3600
    for text in ("Unknown", "NONE", "N/A", "None", "(null)", ""):
        assert parse.moment(text, local) is None
    with pytest.raises(ValueError, match="tomorrow"):
        parse.moment("tomorrow", local)


def test_durations() -> None:
    assert parse.duration("30:00") == 1800
    assert parse.duration("10") == 600
    assert parse.duration("1:00:00") == 3600
    assert parse.duration("1-00:00:00") == 86400
    assert parse.duration("2-12") == 60 * 3600
    assert parse.duration("infinite") is parse.duration("UNLIMITED") is None


def test_the_id_of_a_submitted_job() -> None:
    assert parse.job_id("123\n") == "123"
    assert parse.job_id("123;cluster\n") == "123"
    assert parse.job_id("Welcome!\nYour budget is low.\n123\n") == "123"
    for text in ("", "Submitted batch job", "-1", "12a"):
        with pytest.raises(ValueError, match="no job id"):
            parse.job_id(text)


def test_a_line_of_squeue_whose_name_is_odd() -> None:
    line = COLUMN.join(("2", "RUNNING", "1795261391", "Unknown", "n[1-2]", "None", "a b=c|d", "/work/x|y", "hello x=1"))
    [job] = parse.jobs(f"{line}\n", local)
    assert (job.job_id, job.nodes, job.name, job.folder) == ("2", ("n1", "n2"), "a b=c|d", "/work/x|y")
    assert (job.starts_at, job.ends_at, job.reason, job.comment) == (1795261391.0, None, "", "hello x=1")


SHOWN = (
    "ReservationName=m 1 StartTime=1795264993 EndTime=1795268593 Duration=01:00:00 Nodes=n[1,3] NodeCnt=2 CoreCnt=16"
    " Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES TRES=cpu=16 Users=root Groups=(null)"
    " Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)\n"
    "ReservationName=all StartTime=1795260000 EndTime=1795270000 Nodes=n[1-3] Flags=MAINT,ALL_NODES Users=root\n"
    "ReservationName=course StartTime=1795260000 EndTime=1795270000 Nodes=n[1-3] Flags=SPEC_NODES Users=anna\n"
    "ReservationName=licences StartTime=1795260000 EndTime=1795270000 Nodes=(null) Flags=MAINT Licenses=vasp:1\n"
)


def test_maintenance_is_told_from_other_reservations_and_the_earliest_comes_first() -> None:
    assert parse.maintenance(SHOWN, local) == (
        Maintenance("all", 1795260000.0, 1795270000.0, None, ("MAINT", "ALL_NODES")),
        Maintenance("m 1", 1795264993.0, 1795268593.0, ("n1", "n3"), ("MAINT", "IGNORE_JOBS", "SPEC_NODES")),
    )
    assert parse.maintenance("No reservations in the system\n", local) == ()


def test_maintenance_without_its_times_is_refused() -> None:
    with pytest.raises(ValueError, match="without its times"):
        parse.maintenance("ReservationName=x StartTime=Unknown EndTime=1 Nodes=n1 Flags=MAINT", local)


def test_one_job_of_an_array_is_found() -> None:
    first = "JobId=7 ArrayJobId=7 JobState=PENDING Restarts=0\n"
    text = first + "JobId=8 ArrayJobId=7 JobState=RUNNING Restarts=2 EndTime=99\n"
    status = parse.job_status(text, "8", local)
    assert (status.state, status.restarts, status.ends_at) == ("RUNNING", 2, 99.0)
    with pytest.raises(ValueError, match="nothing about job 9"):
        parse.job_status(text, "9", local)


def test_partitions() -> None:
    text = COLUMN.join(("dcgp", "up", "1-00:00:00", "1536", "112+", "494000", "gpu:a100:4(S:0-1)"))
    assert parse.partitions(text) == (Partition("dcgp", True, 86400, 1536, 112, 494000, "gpu:a100:4(S:0-1)"),)
    with pytest.raises(ValueError, match="sinfo"):
        parse.partitions("dcgp up")


def test_kinds_of_mpi() -> None:
    old = "srun: MPI types are...\nsrun: none\nsrun: pmi2\n"
    new = "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n"
    assert parse.mpi_types(old) == ("none", "pmi2")
    assert parse.mpi_types(new) == ("none", "pmi2", "pmix")
