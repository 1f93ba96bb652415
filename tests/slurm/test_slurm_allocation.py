"""What SLURM granted is read from the environment; what is garbled is named, with what to do."""

import pytest

from db.errors import InputError
from pilot.slurm.allocation import NodeGrant, from_environment

JOB = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "pilot",
    "SLURM_JOB_NODELIST": "n[1-2],m05",
    "SLURM_JOB_CPUS_PER_NODE": "72(x2),36",
    "SLURM_JOB_PARTITION": "main",
    "SLURM_CLUSTER_NAME": "test",
}


def test_outside_of_a_job_there_is_none() -> None:
    assert from_environment({}) is None
    assert from_environment({"SLURM_CONF": "/etc/slurm/slurm.conf", "SLURM_JOB_ID": ""}) is None


def test_nodes_that_differ_have_what_is_theirs() -> None:
    found = from_environment(JOB | {"SLURM_MEM_PER_CPU": "1000", "SLURM_RESTART_COUNT": "2"})
    assert found is not None
    assert (found.job_id, found.restart, found.partition, found.cluster) == ("42", 2, "main", "test")
    assert found.nodes == (NodeGrant("n1", 72, 75497), NodeGrant("n2", 72, 75497), NodeGrant("m05", 36, 37748))
    assert found.starts_at is found.ends_at is None


def test_memory_is_turned_from_mib_into_mb_and_zero_means_all() -> None:
    for given, mb in (({"SLURM_MEM_PER_NODE": "8000"}, 8388), ({"SLURM_MEM_PER_NODE": "0"}, None), ({}, None)):
        found = from_environment(JOB | given)
        assert found is not None
        assert [node.memory_mb for node in found.nodes] == [mb] * 3


def test_newer_slurms_tell_start_and_end() -> None:
    found = from_environment(JOB | {"SLURM_JOB_START_TIME": "1795261391", "SLURM_JOB_END_TIME": "1795264991"})
    assert found is not None
    assert (found.starts_at, found.ends_at) == (1795261391.0, 1795264991.0)


def test_gpus_are_known_of_the_first_node_and_as_tasks_see_them() -> None:
    found = from_environment(JOB | {"SLURM_JOB_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1", "SLURMD_NODENAME": "n1"})
    assert found is not None
    assert [node.gpus for node in found.nodes] == [(0, 1), None, None]
    elsewhere = from_environment(JOB | {"SLURM_JOB_GPUS": "2,3", "SLURMD_NODENAME": "n2"})
    assert elsewhere is not None
    assert [node.gpus for node in elsewhere.nodes] == [None, None, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_JOB_NODELIST", "n[1-"),
        ("SLURM_JOB_NODELIST", ""),
        ("SLURM_JOB_CPUS_PER_NODE", "72(x2)"),
        ("SLURM_JOB_CPUS_PER_NODE", "many"),
        ("SLURM_JOB_CPUS_PER_NODE", "0(x3)"),
        ("SLURM_MEM_PER_NODE", "8G"),
        ("SLURM_RESTART_COUNT", "once"),
        ("SLURM_JOB_END_TIME", "noon"),
        ("SLURM_HET_SIZE", "2"),
    ],
)
def test_a_garbled_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(InputError) as caught:
        from_environment(JOB | {name: value})
    assert name in caught.value.where
    assert caught.value.next_step


def test_a_missing_nodelist_is_named() -> None:
    with pytest.raises(InputError, match="SLURM_JOB_NODELIST is not set") as caught:
        from_environment({"SLURM_JOB_ID": "42"})
    assert "unset SLURM_JOB_ID" in caught.value.next_step
