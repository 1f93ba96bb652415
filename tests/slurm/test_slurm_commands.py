"""The command lines say what is meant, and the environment brings nothing else in."""

from pilot.slurm import commands


def test_a_script_is_handed_in_with_options_before_it() -> None:
    argv = commands.sbatch("pilot.sh", dependency="afterany:7", extra=["-t", "10"])
    assert argv == ["sbatch", "--parsable", "--dependency=afterany:7", "-t", "10", "pilot.sh"]
    assert commands.sbatch("pilot.sh", test_only=True) == ["sbatch", "--parsable", "--test-only", "pilot.sh"]


def test_a_script_that_looks_like_an_option_is_a_script() -> None:
    assert commands.sbatch("-x.sh")[-1] == "./-x.sh"


def test_many_jobs_are_one_question() -> None:
    argv = commands.squeue_states(["1", "2", "3"])
    assert argv[argv.index("--jobs") + 1] == "1,2,3"
    assert "--states=all" in argv


def test_a_signal_goes_to_the_batch_process_only() -> None:
    assert commands.scancel_signal("7", "USR2") == ["scancel", "--batch", "--signal", "USR2", "7"]


def test_one_rank_on_each_node_that_lives() -> None:
    argv = commands.srun_world(["n1", "n3"], ["python", "-m", "x"])
    assert argv[-3:] == ["python", "-m", "x"]
    assert {"--nodelist=n1,n3", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--mpi=pmi2"} <= set(argv)
    # -c would imply --exact: a rank that sees one core only
    assert not any(option.startswith(("-c", "--cpus-per-task", "--exact")) for option in argv[:-3])


def test_the_users_own_taste_does_not_reach_what_we_read() -> None:
    mine = {
        "SQUEUE_FORMAT": "%i",
        "SLURM_TIME_FORMAT": "relative",
        "SLURM_CONF": "/c",
        "PATH": "/bin",
        "LC_ALL": "it_IT",
    }
    asked = commands.query_environ(mine)
    assert asked == {"SLURM_TIME_FORMAT": "%s", "SLURM_CONF": "/c", "PATH": "/bin", "LC_ALL": "C"}


def test_a_job_submitted_from_a_job_inherits_nothing_of_its_grant() -> None:
    parent = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "10", "SLURMD_NODENAME": "n1", "SLURM_CONF": "/c", "HOME": "/h"}
    assert commands.submit_environ(parent | {"SBATCH_ACCOUNT": "a"}) == {
        "SLURM_CONF": "/c",
        "HOME": "/h",
        "SBATCH_ACCOUNT": "a",
    }
