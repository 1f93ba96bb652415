"""When tasks start, when they are asked to stop, and what is told of it: without a clock, a process or a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import InputError
from db.records import Resources, Task
from db.states import TaskKind, TaskState, Verdict
from pilot import drain
from pilot.cli.moments import parse_moment
from pilot.drain import Drain, End, Ends, Phase, Urgency
from pilot.scheduler.nodes import Node
from pilot.scheduler.policy import Clock
from pilot.scheduler.reactor import TOO_LONG, Reactor
from pilot.scheduler.times import Times
from pilot.terms import Terms

HOUR, DAY = 3600.0, 86400.0


def reactor(*tasks: Task, cores: int = 8) -> Reactor:
    found = Reactor(times=Times({TaskKind.LABEL: 100.0, TaskKind.EXPLORE: 10 * HOUR}), pieces={"lammps": 25.0})
    found.node_joined(Node("n1", tuple(range(cores)), 8000))
    found.add(tasks, [])
    return found


def label(number: int, **more: object) -> Task:
    task = Task(number, TaskKind.LABEL, "ase", f"label {number}", TaskState.READY, {}, resources=Resources(), size=1)
    return Task(**{name: more.get(name, getattr(task, name)) for name in Task.__dataclass_fields__})


def started(found: Reactor, clock: Clock) -> list[int]:
    return sorted(placement.task_id for placement in found.schedule(clock)[0])


def test_what_is_interrupted_and_starts_over_needs_more_than_it_had() -> None:
    found = reactor(label(1))
    assert started(found, Clock(0.0, 130.0)) == [1]
    found.attempt_ended(1, Verdict.INTERRUPTED, "the drain", 130.0)
    assert started(found, Clock(130.0, 130.0, DAY)) == []
    assert started(found, Clock(130.0, 300.0, DAY)) == [1]


def test_what_is_interrupted_early_is_expected_to_need_what_it_was_expected_to_need() -> None:
    found = reactor(label(1))
    assert started(found, Clock(0.0, 130.0)) == [1]
    found.attempt_ended(1, Verdict.INTERRUPTED, "node lost", 20.0)
    assert started(found, Clock(20.0, 121.0)) == [1]


def test_what_can_go_on_starts_though_no_allocation_holds_all_of_it() -> None:
    explore = label(1, kind=TaskKind.EXPLORE, engine="lammps")
    found = reactor(explore)
    # it needs ten hours, and is worth starting for half a minute
    assert started(found, Clock(0.0, 29.0, 2 * HOUR)) == []
    assert started(found, Clock(0.0, 30.0, 2 * HOUR)) == [1]


def test_the_time_of_what_went_on_from_others_is_that_of_all_of_them() -> None:
    found = reactor(*[label(number, kind=TaskKind.EXPLORE, engine="lammps") for number in (1, 2)])
    started(found, Clock(0.0))
    found.attempt_ended(1, Verdict.INTERRUPTED, "the drain", 700.0, resumable=True)
    started(found, Clock(0.0))
    found.attempt_ended(1, Verdict.DONE, "", 50.0)
    assert found.times.expected(TaskKind.EXPLORE, 1) == 750.0


def test_a_task_too_long_for_any_allocation_is_told() -> None:
    found = reactor(label(1, time_request_s=5 * HOUR), label(2))
    clock = Clock(0.0, 2 * HOUR, 2 * HOUR)
    assert started(found, clock) == [2]
    [reason] = found.why_waiting(clock)[TaskKind.LABEL]
    assert TOO_LONG in reason
    assert "5 h" in reason
    assert "2 h" in reason


def test_a_task_that_no_longer_fits_waits_for_the_next_allocation_and_says_so() -> None:
    found = reactor(label(1))
    [reason] = found.why_waiting(Clock(0.0, 60.0, 2 * HOUR))[TaskKind.LABEL]
    assert reason == "ready: needs about 1 min 40 s, more than is left of this allocation"


def test_what_is_expected_is_explained() -> None:
    times = Times({TaskKind.LABEL: 100.0})
    assert times.explain(TaskKind.LABEL, 1).why == "as pilot.toml says; none is done yet"
    assert times.explain(TaskKind.LABEL, 1, 20.0).why == "as requested"
    for wall in range(1, 21):
        times.learn(TaskKind.LABEL, 1, float(wall))
    assert times.explain(TaskKind.LABEL, 1, 20.0) == times.explain(TaskKind.LABEL, 1)
    explained = times.explain(TaskKind.LABEL, 1)
    assert (explained.seconds, explained.why) == (18.0, "90% of 20 like it needed no more")
    assert times.explain(TaskKind.LABEL, 1, at_least_s=100.0).seconds == 150.0
    assert times.explain(TaskKind.COMMAND, 0).seconds is None


def test_the_first_of_all_ends_counts() -> None:
    ends = Ends({End.ALLOCATION: 100.0}).moved(End.MAINTENANCE, 60.0).moved(End.BY, 80.0)
    assert ends.first == (End.MAINTENANCE, 60.0)
    assert ends.moved(End.MAINTENANCE, None).first == (End.BY, 80.0)
    assert Ends().first is None


def test_of_a_day_two_minutes_are_kept_for_the_last_commit_and_of_two_minutes_a_quarter_of_one() -> None:
    day = Terms(starts_at=0.0, ends=Ends({End.ALLOCATION: DAY}), soft_stop_s=20.0)
    assert day.stop_at == DAY - 20.0 - 5.0 - 120.0
    short = Terms(starts_at=0.0, ends=Ends({End.ALLOCATION: 120.0}), soft_stop_s=20.0)
    assert short.stop_at == 120.0 - 20.0 - 5.0 - 15.0
    assert short.clock(30.0) == Clock(30.0, 50.0, 80.0)
    assert Terms().clock(30.0) == Clock(30.0)
    # maintenance shortens what is left, and says nothing of how long allocations are
    assert short.ending(End.MAINTENANCE, 100.0).clock(30.0) == Clock(30.0, 30.0, 80.0)


def begin(urgency: Urgency, stop_at: float | None) -> Drain:
    return drain.begin("why", urgency, 1000.0, stop_at=stop_at, wait_s=600.0, soft_s=20.0)


def test_a_wish_lets_what_runs_finish_and_starts_nothing() -> None:
    wish = begin(Urgency.WISH, None)
    assert (wish.stop_at, wish.starts) == (1600.0, False)
    assert begin(Urgency.WISH, 1200.0).stop_at == 1200.0


def test_a_warning_of_the_end_that_is_known_still_starts_what_fits() -> None:
    warned = begin(Urgency.WARNING, 1150.0)
    assert (warned.stop_at, warned.starts) == (1150.0, True)


@pytest.mark.parametrize("stop_at", [None, 9000.0])
def test_a_warning_of_an_end_that_nobody_knows_is_a_hurry(stop_at: float | None) -> None:
    warned = begin(Urgency.WARNING, stop_at)
    assert (warned.stop_at, warned.starts, warned.soft_s) == (1000.0, False, 10.0)


urgencies = st.sampled_from(list(Urgency))
moments = st.none() | st.floats(900.0, 3000.0)


@given(urgencies, urgencies, moments, st.floats(1000.0, 4000.0))
def test_a_second_drain_never_makes_the_first_milder(
    first: Urgency, second: Urgency, stop_at: float | None, now: float
) -> None:
    one, other = begin(first, stop_at), begin(second, stop_at)
    both = one.and_also(other)
    order = list(Phase)
    assert order.index(both.phase(now)) == max(order.index(one.phase(now)), order.index(other.phase(now)))
    assert both.starts == (one.starts and other.starts)
    assert both.and_also(other) == both


NOON = 1795262400.0  # 2026-11-21 12:00 UTC


@pytest.mark.parametrize(
    ("text", "after_s"),
    [("+2 h", 7200.0), ("2026-11-21 14:00+00:00", 7200.0), ("2026-11-21T12:30:30+00:00", 1830.0), ("+1:00", 3600.0)],
)
def test_moments_are_read(text: str, after_s: float) -> None:
    assert parse_moment(text, NOON) == NOON + after_s


@given(st.integers(0, 23), st.integers(0, 59))
def test_a_time_of_the_day_is_the_next_one(hour: int, minute: int) -> None:
    found = parse_moment(f"{hour}:{minute:02}", NOON)
    assert NOON < found <= NOON + DAY + HOUR


@pytest.mark.parametrize("text", ["soon", "25:00", "", "+", "14", "2026-13-01 10:00", "9" * 400])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_moment(text, NOON)
