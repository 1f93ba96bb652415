"""SLURM, seen from a batch job and from a login node."""
