#!/bin/bash
# pilot.sh: one allocation for the pilot of this folder, on @TITLE@.
#
# Made by `pilot init --site @SITE@`. It is yours now: change what you like.
# SLURM reads the lines that begin with "#SBATCH"; those with "##SBATCH" are switched off, take one "#" away to switch
# one on. `pilot submit --dry-run` shows what would be submitted, and what SLURM says of it.
#
@LIMITS@

# >>>>>>>>>> CHANGE THIS: the project whose budget pays; `pilot submit` refuses while it is CHANGE_ME <<<<<<<<<<
#SBATCH --account=@ACCOUNT@

# ---- where, how many nodes, for how long -----------------------------------------------------------------------
@HEADER@
# the allocation may be shorter if it then starts earlier; the pilot asks SLURM when it ends
##SBATCH --time-min=06:00:00

# ---- what the pilot needs of SLURM: leave it as it is ----------------------------------------------------------
# whole nodes, and one agent on each
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
# a name that only this folder has: with singleton SLURM runs one job of a name and user at a time, so that two
# allocations never work on one folder. `pilot submit` sets the name anew if the folder was moved or copied
#SBATCH --job-name=@JOB_NAME@
#SBATCH --dependency=singleton
# SIGUSR1 to this script (B:) three minutes before the end, or up to one minute earlier: the pilot drains. It asks
# SLURM for the end, and watches the clock itself: this is the second rope
#SBATCH --signal=B:USR1@180
# a node that dies takes its own tasks with it, not the allocation
#SBATCH --no-kill
# should the first node die, SLURM puts the job into the queue again: the pilot goes on where it was
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pilot-%j.out

# a signal that comes before the pilot listens must not end this script: an allocation shorter than the three minutes
# above gets it at once
trap '' USR1 USR2

# ---- what the pilot and its tasks find: modules, paths, the Python environment ---------------------------------
@PREPARE@

@ENVIRONMENT@

# "exec": the pilot takes the place of this shell, so that SLURM's signals reach it; so nothing may come after it
exec pilot run
