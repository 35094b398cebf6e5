"""The slot of a worker: which files its processes count in."""

from pathlib import Path

import pytest
from celery import signals

from workers.metrics.slot import claim


def test_a_solo_worker_keeps_its_own_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pool sends `worker_process_init` too, though no child was forked."""
    slot = claim(tmp_path)
    before = slot.name()

    signals.worker_process_init.send(sender=None)

    assert slot.name() == before
    assert not caplog.records
