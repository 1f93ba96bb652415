"""Who is lost: silence counts only while one listens."""

from pilot.agent.silence import Silence


def listen(silence: Silence, start: float, seconds: float, *speakers: str) -> float:
    """Listen in small steps, hearing ``speakers`` all the time; the time afterwards."""
    now = start
    while now < start + seconds:
        now += 0.25
        silence.listen(now)
        for speaker in speakers:
            silence.heard(speaker)
    return now


def test_who_is_silent_for_longer_than_the_limit_is_lost_once() -> None:
    silence = Silence(["n1", "n2"], limit_s=20.0, first_s=60.0, now=0.0)
    now = listen(silence, 0.0, 5.0, "n1", "n2")
    now = listen(silence, now, 19.0, "n1")
    assert silence.lost() == []
    listen(silence, now, 3.0, "n1")
    assert [speaker for speaker, _ in silence.lost()] == ["n2"]
    assert silence.lost() == []


def test_who_has_never_been_heard_has_more_time() -> None:
    silence = Silence(["n1"], limit_s=20.0, first_s=60.0, now=0.0)
    now = listen(silence, 0.0, 55.0)
    assert silence.lost() == []
    listen(silence, now, 10.0)
    assert [speaker for speaker, _ in silence.lost()] == ["n1"]


def test_the_time_in_which_nobody_listened_does_not_count() -> None:
    silence = Silence(["n1"], limit_s=20.0, first_s=60.0, now=0.0)
    silence.heard("n1")
    # a commit that took five minutes
    silence.listen(300.0)
    assert silence.lost() == []


def test_who_is_heard_again_is_expected_again() -> None:
    silence = Silence(["n1"], limit_s=5.0, first_s=5.0, now=0.0)
    now = listen(silence, 0.0, 6.0)
    assert silence.lost()
    silence.heard("n1")
    now = listen(silence, now, 4.0)
    assert silence.lost() == []
    listen(silence, now, 4.0)
    assert silence.lost()


def test_who_has_left_is_not_missed() -> None:
    silence = Silence(["n1"], limit_s=5.0, first_s=5.0, now=0.0)
    silence.forget("n1")
    listen(silence, 0.0, 20.0)
    assert silence.lost() == []
