"""What of this node is ours: what SLURM granted, and what the kernel lets us use of it."""

from pilot import host
from pilot.agent.messages import Hello
from pilot.slurm.allocation import NodeGrant
from pilot.topology import read_topology


def what_is_ours(node: str, grant: NodeGrant | None, *, hyperthreads: bool) -> Hello:
    """The cores, memory and GPUs of this node that tasks may use.

    Where the kernel lets us use just what was granted, these are the kernel's own cores, and tasks are pinned to
    them. Else (SLURM does not confine its jobs, or its nodes are not what it says) nobody can tell which cores are
    ours and which a neighbour's: then they are only counted.

    Args:
        node: its name.
        grant: what SLURM says that we have here; None: all that we see.
        hyperthreads: use all hardware threads of a core, not one.
    """
    seen = host.usable_cores()
    topology = read_topology(seen)
    whole = seen if hyperthreads else topology.one_thread_a_core(seen)
    granted = None if grant is None else grant.cpus
    memory = min(host.memory_mb(), grant.memory_mb or host.memory_mb()) if grant else host.memory_mb()
    gpus = _gpus(grant)
    if granted in {None, len(seen), len(whole)}:
        return Hello(node, whole, memory, gpus, topology.restricted(whole), pinned=True)
    return Hello(node, tuple(range(granted or 0)), memory, gpus, pinned=False)


def _gpus(grant: NodeGrant | None) -> tuple[int, ...]:
    if grant is None:
        return host.gpus()
    # in a job SLURM says on each node which GPUs are ours; where it says nothing we were given none
    return host.visible_gpus() or () if grant.gpus is None else grant.gpus
