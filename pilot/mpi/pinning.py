"""Each rank on cores of its own, by ``taskset``, whatever the launcher is.

The launchers' own pinning is switched off. They count cores in their own ways, and each has other words for it;
``taskset`` takes the kernel's numbers and any number of threads.

On one node each rank is an application of its own in one world: ``-n 1 taskset -c 0 prog : -n 1 taskset -c 1 prog``.
Across nodes that would need to know in which order the launcher counts the nodes. So there is one application,
and a few lines of shell between the launcher and the program choose the cores by the node's name and the number
that the rank has on its node.
"""

from collections.abc import Sequence

from pilot.mpi.protocol import Slot

#: $1 is "node:rank:cores node:rank:cores …", the rest is the command. Open MPI, hydra and srun each have another
#: name for the number of a rank on its node; the daemons of the first two are themselves ranks of srun.
CHOOSE_CORES = """
rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-$SLURM_LOCALID}}
for place in $1; do
    case $place in "$SLURMD_NODENAME:$rank:"*) shift; exec taskset -c "${place##*:}" "$@" ;; esac
done
echo "pilot: no cores are known for rank $rank of node $SLURMD_NODENAME; known are: $1" >&2
exit 1
"""


def applications(command: Sequence[str], slot: Slot, count: str = "-n", first: Sequence[str] = ()) -> list[str]:
    """The ranks of a slot on one node.

    Args:
        command: of each rank.
        slot: on one node.
        count: the launcher's option for the number of ranks.
        first: put before the command of rank 0 only.
    """
    if not slot.pinned and (slot.ranks == 1 or not first):
        return [count, str(slot.ranks), *first, *command]
    if not slot.pinned:
        return [count, "1", *first, *command, ":", count, str(slot.ranks - 1), *command]
    argv: list[str] = []
    for rank in range(slot.ranks):
        cores = ",".join(str(core) for core in slot.cores_of(rank))
        before = first if rank == 0 else ()
        argv += [":", count, "1", *before, "taskset", "-c", cores, *command]
    return argv[1:]


def choosing_cores(command: Sequence[str], slot: Slot) -> list[str]:
    """The command of every rank, which finds its cores when it has started; needs SLURMD_NODENAME on each node."""
    if not slot.pinned:
        return list(command)
    places = [
        f"{share.node}:{rank}:{','.join(str(core) for core in slot.cores_of(rank, share))}"
        for share in slot.shares
        for rank in range(slot.ranks_per_node)
    ]
    return ["/bin/sh", "-c", CHOOSE_CORES, "pilot", " ".join(places), *command]
