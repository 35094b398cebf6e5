"""docs/redis.md, "What stays": no other key is left when everything is settled."""

import re

import redis

from benchmarks.soak import FAMILY, MOST_ENTRIES, named
from tests.support.fleet import Fleet, wait_for

OF_ALL_KINDS = """
from celery import chord, group
from tasks import complete
asked = complete.delay_many([("coder", "hi"), ("planner", "hi"), ("coder", "hi", {"stream": True})])
asked.append(chord([complete.s("planner", "a"), complete.s("coder", "b")])(complete.s("reviewer")))
asked += group(complete.s("coder", "c"), complete.s("planner", "d"))().results
asked.append(complete.apply_async(("coder", "later"), countdown=1.5, priority=7))
for result in asked:
    result.get(timeout=180)
cancelled = complete.apply_async(("coder", "never"), countdown=3600)
cancelled.revoke()
dead = complete.apply_async(("coder", "late"), {"deadline_s": 0.001}, countdown=0.5)
try:
    dead.get(timeout=180)
except Exception as error:
    print(type(error).__name__)
"""


def test_what_is_left_behind_is_on_the_page(workers: Fleet, redis_url: str) -> None:
    """Under its name; what never expires is small, however many completions there were."""
    workers.start(1)
    shared = redis.Redis.from_url(redis_url, decode_responses=True)

    printed = workers.run(OF_ALL_KINDS)
    wait_for(lambda: not shared.exists("taken", "begun") and not shared.xlen("ledger"))
    kinds = {key: FAMILY.sub("ID", key) for key in shared.scan_iter()}

    assert printed.strip() == "DeadlineExceeded"
    assert "celery-task-meta-ID" in kinds.values()
    pages = named()
    assert not [kind for kind in kinds.values() if not any(page.fullmatch(kind) for page in pages)]
    lasting = {key for key in kinds if shared.ttl(key) < 0}
    assert not [key for key in lasting if re.search(r"task|stream:", key)]
    assert len(lasting) < MOST_ENTRIES
