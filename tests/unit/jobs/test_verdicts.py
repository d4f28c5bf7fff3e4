"""What becomes of a job when an attempt has ended."""

from __future__ import annotations

import pytest

from bettong.domain.jobs import JobState
from bettong.errors import BadInput, ModelFailed, Unavailable
from bettong.jobs.verdicts import Again, Ended, Finish, Leave, verdict

DIED = Unavailable("The job's process ended by signal 9.")
WHOLE = Ended(result={"rows": 6})


@pytest.mark.parametrize(("cancel_asked", "going_down"), [(False, False), (True, False), (False, True), (True, True)])
def test_work_that_is_whole_is_done_whatever_was_asked_meanwhile(cancel_asked: bool, going_down: bool) -> None:
    follows = verdict(WHOLE, 2, cancel_asked=cancel_asked, going_down=going_down)

    assert follows == Finish(JobState.SUCCEEDED, {"rows": 6})


@pytest.mark.parametrize(
    "ended", [Ended(result={"rows": 2}, stopped=True), Ended(error=DIED), Ended(error=BadInput("No such column."))]
)
def test_what_was_cancelled_is_cancelled_however_its_process_took_it(ended: Ended) -> None:
    assert verdict(ended, 0, cancel_asked=True, going_down=True) == Finish(JobState.CANCELLED, ended.result)


@pytest.mark.parametrize("ended", [Ended(result={"rows": 2}, stopped=True), Ended(error=DIED)])
def test_a_server_that_goes_down_leaves_its_jobs_to_the_next(ended: Ended) -> None:
    assert verdict(ended, 2, cancel_asked=False, going_down=True) == Leave()


@pytest.mark.parametrize("error", [BadInput("No column.", "Name one."), ModelFailed("It raised.", "Mend it.")])
def test_what_another_attempt_would_not_change_fails_at_once_in_its_own_words(error: BadInput | ModelFailed) -> None:
    assert verdict(Ended(error=error), 0, cancel_asked=False, going_down=False) == Finish(
        JobState.FAILED, error=str(error)
    )


def test_a_death_is_tried_again_later_each_time_and_the_third_is_the_last() -> None:
    first = verdict(Ended(error=DIED), 0, cancel_asked=False, going_down=False)
    second = verdict(Ended(error=DIED), 1, cancel_asked=False, going_down=False)
    third = verdict(Ended(error=DIED), 2, cancel_asked=False, going_down=False)

    assert (first, second) == (Again(2.0, 1, str(DIED)), Again(4.0, 2, str(DIED)))
    assert isinstance(third, Finish)
    assert third.state is JobState.FAILED
    assert third.error.startswith("The job's process ended by signal 9. It was tried 3 times in a row")


def test_whoever_is_told_of_another_try_is_not_asked_to_try_again() -> None:
    broken = Unavailable("The connection to Redis broke.", "Try again.")

    follows = verdict(Ended(error=broken), 0, cancel_asked=False, going_down=False)

    assert follows == Again(2.0, 1, "The connection to Redis broke.")


def test_an_attempt_that_got_further_begins_the_count_anew() -> None:
    follows = verdict(Ended(error=DIED, advanced=True), 2, cancel_asked=False, going_down=False)

    assert follows == Again(2.0, 1, str(DIED))
