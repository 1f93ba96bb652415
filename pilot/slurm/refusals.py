"""What to do when sbatch refuses. Pure."""

from collections.abc import Sequence

from db.errors import InputError, PilotError, StateError

_PARTITIONS = "see the partitions: sinfo -o '%P %a %l %D %c %m %G'"
_ACCOUNTS = "see your accounts: sacctmgr show assoc user=$USER format=account,partition,qos; give one with #SBATCH -A"

#: what sbatch says (in small letters) → what to do; the first that fits
_ADVICE = (
    ("invalid partition", _PARTITIONS),
    ("user's group not permitted", _PARTITIONS),
    ("invalid account or account/partition", _ACCOUNTS),
    ("invalid account", _ACCOUNTS),
    (
        "invalid qos",
        "see your QOS: sacctmgr show assoc user=$USER format=account,partition,qos; set it with #SBATCH -q",
    ),
    ("time limit", "set #SBATCH -t within the limit of the partition: sinfo -o '%P %l'"),
    ("node configuration is not available", _PARTITIONS),
    ("node count", _PARTITIONS),
    ("more processors requested", _PARTITIONS),
    ("invalid generic resource", "see which GPUs there are, and how they are called: sinfo -o '%P %G'"),
    ("memory specification", _PARTITIONS),
    ("unable to open file", "see that the script is there: ls -l"),
    ("submit limit", "wait until some of your jobs are over: squeue -u $USER"),
    ("accounting/qos policy", "see your limits: sacctmgr show assoc user=$USER format=account,qos,maxsubmit,maxjobs"),
    ("dependency", "the job that it depends on is not known: squeue -u $USER"),
    ("timed out", "it may have been accepted all the same: look with squeue -u $USER before you try again"),
    ("unable to contact", "SLURM is away: scontrol ping; try again in some minutes"),
    ("unable to process configuration", "this machine has no SLURM configuration: log in to a node of the cluster"),
)
#: those that are not the user's fault
_PASSING = ("timed out", "unable to contact", "submit limit", "accounting/qos policy", "unable to process")


def refusal(argv: Sequence[str], code: int | None, words: str) -> PilotError:
    """The error for a job that was not accepted.

    Args:
        argv: what was asked.
        code: sbatch's exit code; None when it took too long.
        words: what it said.
    """
    where = " ".join(argv)
    if code is None:
        return StateError("sbatch did not answer in time", where=where, next_step=dict(_ADVICE)["timed out"])
    said = [line.strip() for line in words.splitlines() if line.strip()]
    low = " ".join(said).lower()
    advice = next((advice for phrase, advice in _ADVICE if phrase in low), f"try it by hand: {where}")
    kind = StateError if any(phrase in low for phrase in _PASSING) else InputError
    return kind(
        f"SLURM did not take the job: {'; '.join(said[-3:]) or f'sbatch ended with code {code}'}",
        where=where,
        next_step=advice,
    )
