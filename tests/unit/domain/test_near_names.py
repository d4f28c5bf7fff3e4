"""What is offered to somebody who has named what is not there."""

from __future__ import annotations

import pytest

from bettong.domain.near_names import offer, shown


@pytest.mark.parametrize(
    ("name", "known", "offered"),
    [
        ("hlaf", ["rental", "half"], "Did you mean 'half'?"),
        ("x", ["rental"], "There is: 'rental'."),
        ("x", ["rental", "half"], "There are: 'rental', 'half'."),
        ("x", list("abcdefg"), "There are: 'a', 'b', 'c', 'd', 'e' and 2 more."),
        ("x", [], ""),
    ],
)
def test_the_nearest_name_is_offered_or_the_first_ones(name: str, known: list[str], offered: str) -> None:
    assert offer(name, known) == offered


def test_a_name_without_an_end_is_repeated_as_far_as_people_read() -> None:
    assert shown("half") == "'half'"
    assert shown("x" * 100_000) == f"'{'x' * 80}…'"
