"""What a job's process says tells whether it lives, and whether its work goes on."""

from __future__ import annotations

from bettong.jobs.pulse import MOST_OF_A_LOOK_S, Pulse


def looks(pulse: Pulse, first_s: float, seconds: float, *, heard: bool, progress: bool = False) -> list[str]:
    """Look every half second; the news that there were."""
    news = []
    for look in range(round(2 * seconds)):
        pulse.looked(first_s + (look + 1) / 2, heard=heard, progress=progress)
        if (told := pulse.news()) is not None:
            news.append(told)
    return news


def test_a_process_that_says_nothing_is_silent_for_as_long_as_it_was_listened_to() -> None:
    pulse = Pulse(0.0)

    looks(pulse, 0.0, 59.5, heard=False)
    assert pulse.silent_s == 59.5
    looks(pulse, 59.5, 0.5, heard=True)
    assert pulse.silent_s == 0.0


def test_a_server_that_slept_blames_no_process_for_that() -> None:
    pulse = Pulse(0.0)

    pulse.looked(3600.0, heard=False, progress=False)

    assert pulse.silent_s == MOST_OF_A_LOOK_S


def test_work_that_does_not_go_on_is_told_of_after_ten_minutes_and_each_time_that_it_has_doubled() -> None:
    pulse = Pulse(0.0)

    news = looks(pulse, 0.0, 3600.0, heard=True)
    assert [line.split(" for ")[1] for line in news] == ["10 minutes.", "20 minutes.", "40 minutes."]
    assert looks(pulse, 3600.0, 1.0, heard=True, progress=True) == []
    assert len(looks(pulse, 3601.0, 600.0, heard=True)) == 1
