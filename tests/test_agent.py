"""The agent: what it makes of starts, stops, broken output, and of deaths of its launcher and of itself."""

import os
import signal
import subprocess
import sys

import pytest

from db.states import Verdict
from pilot import host
from pilot.agent import journal, monitor
from pilot.agent.messages import Goodbye, Hello
from pilot.topology import read_topology
from tasks.protocol import Cause
from tests.agents import ROOT, Bench, carriers, gone, until


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.comm.close()
    assert carriers(bench.campaign, tasks_only=False) == []


def test_it_says_hello_first_when_its_launcher_is_ready(bench):
    heard = []
    until(lambda: heard, lambda: heard.extend(bench.comm.receive(0.1)))
    first = heard[0]
    domains = read_topology(host.usable_cores()).restricted(host.usable_cores())
    assert first == (bench.node, Hello(bench.node, host.usable_cores(), host.memory_mb(), host.gpus(), domains))
    assert bench.comm.nodes() == (bench.node,)


def test_messages_for_another_node_are_dropped(bench):
    bench.comm.send("elsewhere", Goodbye())
    assert bench.wait(bench.start("true")).judgement.verdict is Verdict.DONE


def test_gpus_of_the_slot_are_the_visible_ones(bench):
    attempt = bench.shell("echo $CUDA_VISIBLE_DEVICES", gpus=(1, 3))
    bench.wait(attempt)
    assert bench.text(attempt) == "1,3\n"


def test_input_that_cannot_be_made_is_bad_input(bench):
    refused = bench.start("true", refuse="no such pseudopotential")
    unknown = bench.start("true", engine="abacus")
    bench.wait(refused, unknown)
    judgement = bench.ended[refused].judgement
    assert judgement.verdict is Verdict.BAD_INPUT
    assert judgement.reason == "no such pseudopotential; where: here; next:  do better"
    assert bench.ended[refused].end.cause is Cause.NOT_STARTED
    assert bench.ended[unknown].judgement.verdict is Verdict.BAD_INPUT


def test_a_directory_that_cannot_be_made_is_no_fault_of_the_task(bench):
    (bench.root / "file").write_text("in the way")
    below = bench.start("true", directory="file/below")
    itself = bench.start("true", directory="file")
    good = bench.start("true")
    bench.wait(below, itself, good)
    for attempt in (below, itself):
        assert bench.ended[attempt].judgement.verdict is Verdict.INFRASTRUCTURE
        assert "file" in bench.ended[attempt].judgement.reason
    assert bench.ended[good].judgement.verdict is Verdict.DONE


@pytest.mark.parametrize("stumble", [ValueError, KeyError, IndexError, OSError, UnicodeError, ZeroDivisionError])
def test_output_that_an_engine_stumbles_over_costs_that_attempt_only(bench, stumble):
    broken = bench.start("true", stumble=stumble)
    stopped = bench.start("sleep", "1000", stumble=stumble)
    bench.stop(stopped, Cause.DRAIN)
    bench.wait(broken, stopped)
    assert bench.ended[broken].judgement.verdict is Verdict.CRASHED
    assert bench.ended[broken].judgement.reason.startswith("output could not be read: ")
    assert bench.ended[stopped].judgement.verdict is Verdict.INTERRUPTED


def test_an_engine_that_can_stop_softly_is_asked_first(bench):
    attempt = bench.shell("while [ ! -e stop ]; do sleep 0.05; done; echo bye", soft=True)
    bench.stop(attempt, Cause.DRAIN)
    end = bench.wait(attempt).end
    assert (end.cause, end.code, bench.text(attempt)) == (Cause.DRAIN, 0, "bye\n")


def test_a_soft_stop_that_is_not_heeded_goes_on_to_sigterm_and_sigkill(bench):
    deaf = bench.start("sleep", "1000", soft=True)
    deafer = bench.shell("trap '' TERM; while :; do sleep 0.1; done", soft=True)
    bench.stop(deaf, Cause.DRAIN, soft_s=0.2)
    bench.stop(deafer, Cause.DRAIN, soft_s=0.2, term_s=0.2)
    bench.wait(deaf, deafer)
    assert bench.ended[deaf].end.signal == signal.SIGTERM
    assert bench.ended[deafer].end.signal == signal.SIGKILL
    assert bench.path(deaf, "stop").exists()


def test_a_hard_stop_overtakes_a_soft_one(bench):
    attempt = bench.start("sleep", "1000", soft=True)
    bench.stop(attempt, Cause.DRAIN, soft_s=10_000.0)
    bench.stop(attempt, Cause.CANCEL, soft=False)
    end = bench.wait(attempt).end
    assert (end.cause, end.signal) == (Cause.CANCEL, signal.SIGTERM)


def test_a_stop_for_what_has_ended_does_nothing(bench):
    attempt = bench.start("true")
    bench.wait(attempt)
    bench.stop(attempt)
    bench.stop(4711)
    assert bench.wait(bench.start("true")).judgement.verdict is Verdict.DONE


def test_goodbye_ends_all_and_the_launcher_too(bench):
    attempts = [bench.start("sleep", "1000"), bench.shell("trap '' TERM; while :; do sleep 0.1; done")]
    launcher = bench.launcher()
    bench.comm.send(bench.node, Goodbye())
    bench.until(lambda: bench.agent.finished)
    assert [bench.ended[attempt].end.cause for attempt in attempts] == [Cause.DRAIN, Cause.DRAIN]
    assert gone([launcher])


def test_when_the_launcher_is_killed_its_attempts_are_lost_and_a_new_one_serves(bench):
    lost = bench.shell("setsid sleep 1000 & sleep 1000")
    complete = bench.shell("touch result; sleep 1000")
    bench.until(lambda: len(carriers(bench.campaign)) >= 4 and bench.path(complete, "result").exists())
    left = carriers(bench.campaign)
    os.kill(bench.launcher(), signal.SIGKILL)
    bench.wait(lost, complete)
    assert gone(left)
    assert bench.ended[lost].end.cause is Cause.LOST
    assert bench.ended[lost].judgement.verdict is Verdict.INTERRUPTED
    assert bench.ended[complete].judgement.verdict is Verdict.DONE
    assert "launcher died" in bench.troubles[0].text
    assert bench.wait(bench.start("true")).judgement.verdict is Verdict.DONE


def test_an_end_that_was_written_but_not_told_is_not_lost(bench):
    attempt = bench.shell("exit 5")
    bench.agent._link.flush()
    file = journal.ends_file(bench.root, 1, bench.node)
    until(lambda: attempt in journal.read_ends(file))
    # the pipe's content dies with the launcher's reader: as if it had been killed before it told
    os.kill(bench.agent._link.pid, signal.SIGKILL)
    until(lambda: gone([bench.agent._link.pid]))
    while bench.agent._link.alive:
        bench.agent._link.read(0.1)
    assert bench.wait(attempt).end.code == 5


def test_a_launcher_asked_to_end_ends_its_tasks(bench):
    running = bench.start("sleep", "1000")
    bench.until(lambda: carriers(bench.campaign))
    os.kill(bench.launcher(), signal.SIGTERM)
    crossing = bench.start("sleep", "1000")
    bench.wait(running, crossing)
    assert {ended.end.cause for ended in bench.ended.values()} == {Cause.LOST}
    assert {ended.judgement.verdict for ended in bench.ended.values()} == {Verdict.INTERRUPTED}
    bench.until(lambda: bench.troubles)
    assert bench.wait(bench.start("true")).judgement.verdict is Verdict.DONE


PILOT = """
import sys
from pathlib import Path
from tests.agents import Bench
bench = Bench(Path(sys.argv[1]), campaign=sys.argv[2])
bench.shell("setsid sleep 1000 & env -i sleep 1000 & trap '' TERM; while :; do sleep 0.1; done")
bench.start("sleep", "1000")
print(bench.launcher(), flush=True)
while True:
    bench.turn()
"""


@pytest.fixture
def other_pilot(tmp_path):
    """A pilot in a process of its own with six processes of two tasks; and the process id of its launcher."""
    campaign = f"test-{os.getpid()}-{tmp_path.name}"
    argv = [sys.executable, "-c", PILOT, str(tmp_path), campaign]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as pilot:
        launcher = int(pilot.stdout.readline())
        until(lambda: len(carriers(campaign)) >= 4)
        yield pilot, launcher, campaign
        pilot.kill()
        until(lambda: gone([launcher]))


def test_when_the_agent_is_killed_nothing_is_left(other_pilot):
    pilot, launcher, campaign = other_pilot
    left = below(launcher)
    pilot.kill()
    pilot.wait()
    until(lambda: gone([launcher]))
    assert gone(left)
    assert carriers(campaign, tasks_only=False) == []


def test_when_agent_and_launcher_are_killed_the_next_launcher_sweeps(other_pilot, tmp_path):
    pilot, launcher, campaign = other_pilot
    left = below(launcher)
    # stopped, it cannot see that its agent is dead
    os.kill(launcher, signal.SIGSTOP)
    pilot.kill()
    os.kill(launcher, signal.SIGKILL)
    pilot.wait()
    until(lambda: gone([launcher]))
    assert not gone(left)
    bystander = Bench(tmp_path / "bystander", campaign="another campaign", epoch=1)
    kept = bystander.start("sleep", "1000")
    bystander.until(lambda: len(carriers("another campaign")) == 1)
    next_pilot = Bench(tmp_path, campaign=campaign, epoch=2)
    next_pilot.wait(next_pilot.start("true"))
    next_pilot.comm.close()
    assert gone(left)
    assert kept not in bystander.ended
    assert len(carriers("another campaign")) == 1
    bystander.comm.close()


def below(launcher):
    """All processes below it."""
    owners = monitor.owners(monitor.scan(monitor.listed()), launcher, {}, {})
    return list(owners)


def test_a_reused_process_id_is_never_signalled():
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        seen = host.process(innocent.pid)
        assert monitor.send(seen._replace(start=seen.start - 1), signal.SIGKILL) is False
        assert innocent.poll() is None
        assert monitor.send(seen, signal.SIGKILL) is True
        innocent.wait()
        assert monitor.send(seen, signal.SIGKILL) is False


def test_the_session_of_a_stranger_with_a_known_number_is_spared():
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as innocent:
        start = host.process_start(innocent.pid)
        nobody = {"PILOT_CAMPAIGN": "nobody"}
        assert monitor.marked(lambda env: env == nobody, {innocent.pid: start - 1}) == []
        found = monitor.marked(lambda env: env == nobody, {innocent.pid: start})
        assert [process.pid for process in found] == [innocent.pid]
        innocent.kill()


def test_owners_by_session_by_parent_and_by_mark():
    def process(pid, ppid, session):
        return host.Process(pid, ppid, session, 0, 0.0, zombie=False)

    seen = [
        process(1, 0, 1),
        process(50, 1, 50),  # the launcher
        process(60, 50, 60),  # leader of attempt 6
        process(61, 60, 60),
        process(62, 61, 62),  # setsid below it
        process(70, 50, 70),  # orphan with the mark of attempt 7
        process(71, 70, 71),
        process(80, 50, 80),  # orphan without
        process(90, 1, 90),
        process(91, 90, 90),
    ]
    found = monitor.owners(seen, 50, {60: 6}, {70: 7})
    assert found == {60: 6, 61: 6, 62: 6, 70: 7, 71: 7, 80: monitor.UNKNOWN}
