"""Jobs on a real server, with real processes: what is killed goes on, what is cancelled stops, nothing is given away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from job_kit import JobPlatform, job_platform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[JobPlatform]:
    with job_platform(tmp_path) as made:
        yield made


def test_a_job_does_its_work_in_a_process_of_its_own_and_tells_how_far_it_is(platform: JobPlatform) -> None:
    job_id = platform.make()

    platform.let(0, 1)
    platform.done_to(1)
    platform.let(2, 3, 4, 5)
    ended = platform.ended(job_id)

    assert ended["state"] == "succeeded", (ended, platform.log(job_id))
