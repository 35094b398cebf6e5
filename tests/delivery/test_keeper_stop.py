"""The keeper of a worker that stops."""

import threading
from unittest.mock import patch

import pytest
import redis

from tasks.delivery import lease_keeper
from tasks.delivery.lease_keeper import DeliveryKeeper
from tests.delivery.conftest import Bench


def _fail() -> None:
    raise redis.ConnectionError("Bad file descriptor")


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_normal_stop_logs_no_loss_of_redis(bench: Bench, is_stopped: bool) -> None:
    """The process closes the connection at which its keeper waits for a parked queue."""
    keeper = DeliveryKeeper(bench.store)
    keeper.stopped = is_stopped
    keeper._thread = threading.Thread(target=keeper._try, args=(_fail,))

    with patch.object(lease_keeper, "_log") as log:
        keeper._thread.start()
        keeper._thread.join(60)

    assert log.warning.called is not is_stopped
