"""What is said of a task that waits."""

import pytest

from breakwater.messaging.whereabouts import Whereabouts
from workers.commands.waiting import TaskStatus


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0, "it waits in role.coder, the next"),
        (1, "it waits in role.coder behind 1 other"),
        (2, "it waits in role.coder behind 2 others"),
    ],
)
def test_the_place_in_the_queue_is_said(ahead: int, said: str) -> None:
    """In plain words for each number."""
    where = Whereabouts("waiting", how="queue", queue="role.coder", ahead=ahead)

    assert TaskStatus(where, None, 0).lines() == [said]
