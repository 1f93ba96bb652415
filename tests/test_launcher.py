"""The launcher with real processes: where they run, what they see, and how they end."""

import json
import signal
import sys

import pytest

from db.records import Resources
from db.states import Verdict
from pilot import host
from pilot.agent import journal
from pilot.agent.launcher import GRACE_S
from tasks.protocol import Cause, Exit
from tests.agents import Bench, carriers, clean_environ, gone, numbers

CORES = host.usable_cores()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.comm.close()
    assert carriers(bench.campaign, tasks_only=False) == []


def test_a_task_runs_on_the_cores_of_its_slot(bench):
    attempts = [bench.start("grep", "Cpus_allowed_list", "/proc/self/status", cores=(core,)) for core in CORES]
    everywhere = bench.start("grep", "Cpus_allowed_list", "/proc/self/status", cores=CORES)
    bench.wait(*attempts, everywhere)
    assert [numbers(bench.text(a).split(":")[1]) for a in attempts] == [[core] for core in CORES]
    python = "import os; print(*sorted(os.sched_getaffinity(0)))"
    attempt = bench.start(sys.executable, "-c", python, cores=CORES)
    bench.wait(attempt)
    assert tuple(numbers(bench.text(attempt))) == CORES


def test_a_task_leads_a_session_of_its_own_in_its_folder(bench):
    python = "import os; print(os.getpid(), os.getsid(0), os.getpgid(0), os.getcwd())"
    attempt = bench.start(sys.executable, "-c", python)
    bench.wait(attempt)
    pid, session, group, folder = bench.text(attempt).split()
    assert pid == session == group
    assert folder == str(bench.path(attempt, "stdout").parent)


def test_another_folder_can_be_asked_for(bench, tmp_path):
    attempt = bench.start("pwd", cwd=tmp_path)
    bench.wait(attempt)
    assert bench.text(attempt).strip() == str(tmp_path)


def test_the_environment_is_clean(tmp_path):
    dirt = {"OMPI_UNIVERSE_SIZE": "4", "PMIX_RANK": "0", "SLURM_JOB_ID": "7", "PMI_FD": "3", "OMP_PLACES": "{0}"}
    bench = Bench(tmp_path, environ=clean_environ(MINE="kept", **dirt))
    attempt = bench.start("env", env={"ADDED": "yes"}, resources=Resources(ranks=1, threads=3))
    bench.wait(attempt)
    bench.comm.close()
    env = dict(line.partition("=")[::2] for line in bench.text(attempt).splitlines())
    assert not dirt.keys() & env.keys()
    assert env["PATH"] == clean_environ()["PATH"]
    assert env["MINE"] == "kept"
    assert env["ADDED"] == "yes"
    assert env["OMP_NUM_THREADS"] == "3"
    assert env["PILOT_ATTEMPT"] == str(attempt)
    assert env["PILOT_CAMPAIGN"] == bench.campaign


def test_input_and_output_are_files_of_the_attempt(bench):
    apart = bench.shell("cat; echo oops >&2", input="hello\n")
    joined = bench.shell("echo one; echo two >&2; cat", join=True)
    bench.wait(apart, joined)
    assert bench.text(apart) == "hello\n"
    assert bench.text(apart, "stderr") == "oops\n"
    assert bench.text(joined) == "one\ntwo\n"


def test_code_signal_and_usage_are_reported(bench):
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    code = bench.shell("exit 7")
    killed = bench.shell("kill -SEGV $$")
    busy = bench.start(sys.executable, "-c", burn)
    large = bench.start(sys.executable, "-c", "x = b'x' * 80_000_000")
    bench.wait(code, killed, busy, large)
    assert (bench.ended[code].end.code, bench.ended[code].end.signal) == (7, None)
    assert (bench.ended[killed].end.code, bench.ended[killed].end.signal) == (None, signal.SIGSEGV)
    assert bench.ended[busy].end.cpu_s >= 0.2
    assert bench.ended[busy].end.wall_s > 0.0
    assert 80 < bench.ended[large].end.peak_mb < 200


def test_signals_are_not_ignored_in_tasks(bench):
    attempt = bench.start("grep", "SigIgn", "/proc/self/status")
    bench.wait(attempt)
    # glibc keeps 32 and 33 to itself
    assert int(bench.text(attempt).split()[1], 16) & 0x7FFF_FFFF == 0


def test_the_time_limit_ends_a_task(bench):
    attempt = bench.start("sleep", "1000", limit_s=0.2)
    end = bench.wait(attempt).end
    assert (end.cause, end.signal) == (Cause.TIMEOUT, signal.SIGTERM)


def test_the_time_limit_ends_a_task_that_ignores_sigterm(bench):
    attempt = bench.shell("trap '' TERM; while :; do sleep 0.1; done", limit_s=0.2)
    end = bench.wait(attempt).end
    assert (end.cause, end.signal) == (Cause.TIMEOUT, signal.SIGKILL)
    assert end.wall_s >= GRACE_S


def test_memory_over_the_limit_ends_that_task_only(bench):
    eat = "import signal; x = b'x' * {}; print('full', flush=True); signal.pause()"
    modest = bench.start(sys.executable, "-c", eat.format(1_000_000), memory_mb=200)
    eater = bench.start(sys.executable, "-c", eat.format(400_000_000), memory_mb=200)
    end = bench.wait(eater).end
    assert (end.cause, end.signal) == (Cause.MEMORY, signal.SIGKILL)
    assert end.peak_mb > 200
    assert modest not in bench.ended
    bench.stop(modest)
    assert bench.wait(modest).end.cause is Cause.CANCEL


def test_the_memory_of_all_its_processes_counts(bench):
    eat = f"{sys.executable} -c \"import signal; x = b'x' * 120_000_000; signal.pause()\""
    attempt = bench.shell(f"{eat} & setsid {eat} & wait", memory_mb=200)
    assert bench.wait(attempt).end.cause is Cause.MEMORY


DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        signal.pause()
    os._exit(0)
os.wait()
"""


def test_a_daemon_ends_with_the_attempt_that_started_it(bench):
    attempt = bench.start(sys.executable, "-c", DAEMON + "while not os.path.getsize('stdout'): pass")
    bench.wait(attempt)
    assert gone(numbers(bench.text(attempt)))


def test_a_daemon_is_not_ended_with_another_attempt(bench):
    keeper = bench.start(sys.executable, "-c", DAEMON + "signal.pause()")
    bench.until(lambda: bench.text(keeper))
    other = bench.shell("sleep 1000 &")
    bench.wait(other)
    assert not gone(numbers(bench.text(keeper)))
    bench.stop(keeper, term_s=0.2)
    bench.wait(keeper)
    assert gone(numbers(bench.text(keeper)))


def test_a_daemon_without_mark_and_session_ends_when_all_has_ended(bench):
    attempt = bench.start("env", "-i", sys.executable, "-c", DAEMON + "while not os.path.getsize('stdout'): pass")
    bench.wait(attempt)
    bench.until(lambda: gone(numbers(bench.text(attempt))))


def test_what_a_task_leaves_in_the_background_ends_with_it(bench):
    attempt = bench.shell("sleep 1000 & (sleep 1000 & sleep 1000) & setsid sleep 1000 & echo started")
    assert bench.wait(attempt).judgement.verdict is Verdict.DONE
    assert carriers(bench.campaign) == []


def test_after_sigterm_children_may_finish_what_they_do(bench):
    child = (
        "import signal, sys, threading\n"
        "def tidy(*_): threading.Event().wait(0.3); open('tidy', 'w').write('tidy'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, tidy); print('up', flush=True); signal.pause()"
    )
    attempt = bench.shell(f'{sys.executable} -c "$CHILD" & wait', env={"CHILD": child})
    bench.until(lambda: bench.text(attempt))
    bench.stop(attempt, term_s=20.0)
    bench.wait(attempt)
    assert bench.text(attempt, "tidy") == "tidy"


def test_a_fork_storm_is_ended(bench):
    attempt = bench.shell("f() { while :; do sleep 0.01 & sleep 0.01; done; }; f & f & wait")
    bench.until(lambda: len(carriers(bench.campaign)) > 3)
    bench.stop(attempt, term_s=0.0)
    bench.wait(attempt)
    assert carriers(bench.campaign) == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("no-such-program",), "no such program"),
        (("/no/such/program",), "No such file"),
        (("/etc/passwd",), "Permission denied"),
        (("./script",), "interpreter"),
    ],
)
def test_a_program_that_cannot_be_started(bench, tmp_path, argv, says):
    script = tmp_path / "script"
    script.write_text("#!/no/such/shell\n")
    script.chmod(0o755)
    end = bench.wait(bench.start(*argv, cwd=tmp_path)).end
    assert (end.cause, end.code) == (Cause.NOT_STARTED, None)
    assert says in end.message


def test_a_folder_or_core_that_is_not_there(bench, tmp_path):
    nowhere = bench.start("true", cwd=tmp_path / "nowhere")
    no_core = bench.start("true", cores=(max(CORES) + 5000,))
    good = bench.start("true")
    bench.wait(nowhere, no_core, good)
    assert "cannot make or enter" in bench.ended[nowhere].end.message
    assert "cannot use the cores" in bench.ended[no_core].end.message
    assert bench.ended[no_core].judgement.verdict is Verdict.INFRASTRUCTURE
    assert bench.ended[good].judgement.verdict is Verdict.DONE


def test_each_of_500_ends_is_told_and_written_once(bench):
    attempts = {bench.start("/bin/true") for _ in range(500)}
    bench.wait(*attempts)
    assert set(bench.ended) == attempts
    assert all(ended.judgement.verdict is Verdict.DONE for ended in bench.ended.values())
    file = journal.ends_file(bench.root, 1, bench.node)
    written = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert sorted(written) == sorted(attempts)
    assert journal.read_ends(file)[1] == bench.ended[1].end


def test_the_words_on_the_wire_are_the_causes():
    assert {"timeout", "memory", "drain", "lost", "not started"} <= set(Cause)


def test_a_torn_line_is_left_out_and_later_lines_are_whole(tmp_path):
    first = Bench(tmp_path)
    first.wait(first.shell("exit 3"))
    first.comm.close()
    file = journal.ends_file(tmp_path, 1, first.node)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40].replace(b'"id":1', b'"id":9'))
    assert journal.read_ends(file).keys() == {1}
    second = Bench(tmp_path)
    second._last = 1
    second.wait(second.shell("exit 4"))
    second.comm.close()
    ends = journal.read_ends(file)
    assert {attempt: end.code for attempt, end in ends.items()} == {1: 3, 2: 4}


def test_a_journal_that_is_not_there_has_no_ends(tmp_path):
    assert journal.read_ends(tmp_path / "none") == {}


def test_a_block_of_zeros_in_the_journal_does_no_harm(tmp_path):
    line = {"id": 1, "code": 0, "signal": None, "cause": None, "wall_s": 1, "cpu_s": 1, "peak_mb": 1, "message": ""}
    file = tmp_path / "ends"
    file.write_bytes(b"\0" * 512 + b"\n" + json.dumps(line).encode() + b"\n[]\n17\n")
    assert journal.read_ends(file) == {1: Exit(code=0, wall_s=1, cpu_s=1, peak_mb=1)}
