"""docs/integrations.md: each of its programs runs as it stands, over a real worker."""

import sys
from pathlib import Path
from subprocess import STDOUT

import pytest

from simulator.client import Simulator
from tests.support.fleet import Fleet, wait_for
from tests.support.pages import blocks_of
from tests.support.spawner import run, spawn

pytestmark = pytest.mark.slow
LABELS = ("claude", "gpt", "gemini")

FASTAPI = """
from fastapi.testclient import TestClient
from main import api
with TestClient(api) as web:
    whole = web.post("/answers", params={"prompt": "hi"})
    assert (whole.status_code, whole.json()["text"]) == (200, "One two"), whole.text
    with web.stream("POST", "/answers/stream", params={"prompt": "hi"}) as answer:
        assert "".join(answer.iter_text()) == "One two"
    assert web.post("/answers", params={"prompt": ""}).status_code == 400
"""
DJANGO = """
import os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
django.setup()
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.test.utils import setup_test_environment
call_command("migrate", run_syncdb=True, verbosity=0)
setup_test_environment()
from breakwater import app
from articles.models import Article, create
web = Client()
made = web.post("/articles", {"text": "A long text"})
assert made.status_code == 201, made.content
ends_at = time.monotonic() + 120
while (seen := web.get("/articles/1/summary")).status_code == 202 and time.monotonic() < ends_at:
    time.sleep(0.05)
assert seen.json() == {"text": "One two"}, seen.content
try:
    with transaction.atomic():
        article = create("Another text")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert Article.objects.count() == 1
assert app.AsyncResult("article-2-summary").state == "PENDING"
"""
BEAT = """
from celery.beat import Scheduler
from schedule import app
scheduler = Scheduler(app)
entry = scheduler.schedule["morning-digest"]
print(scheduler.apply_async(entry).get(timeout=120)["text"])
"""
OWN_TASKS = """
import time
from shop import shop, summarise
from breakwater import app
summarise.delay(7, "A text").get(timeout=120)
print(app.AsyncResult("article-7-summary").get(timeout=120)["text"])
"""


class Project:
    """The files of the page, in a folder that comes first on the path."""

    def __init__(self, folder: Path, workers: Fleet) -> None:
        self.folder = folder
        self.environ = {
            "PATH": workers.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(folder),
            "ROLES_FILE": workers.environ["ROLES_FILE"],
            # A stock Celery app does not know our options of an address.
            "REDIS_URL": workers.environ["REDIS_URL"].partition("?")[0],
        }
        for block in blocks_of("docs/integrations.md"):
            if block.file:
                path = folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)

    def run(self, code: str) -> str:
        done = run([sys.executable, "-c", code], cwd=self.folder, env=self.environ, fresh=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path, docs_fleet: Fleet, simulator: Simulator) -> Project:
    for label in LABELS:
        simulator.settings(label, answer="One two")
    return Project(tmp_path, docs_fleet)


def test_fastapi_waits_streams_and_refuses(project: Project) -> None:
    """By its own test client; a prompt that is refused is status 400."""
    project.run(FASTAPI)


def test_django_enqueues_after_the_commit(project: Project) -> None:
    """What is rolled back enqueues nothing."""
    project.run(DJANGO)


def test_beat_sends_what_its_schedule_says(project: Project) -> None:
    """Through beat's own scheduler, when it is due."""
    assert project.run(BEAT).split("\n")[-2] == "One two"


def test_a_task_of_ones_own_gets_the_answer(project: Project, simulator: Simulator) -> None:
    """Over the same database, from our worker to a stock worker; and the error, if it fails."""
    log = project.folder / "shop.log"
    with log.open("wb") as output:
        worker = spawn(
            [sys.executable, "-m", "celery", "-A", "shop:shop", "worker", "--queues", "shop", "-P", "solo",
             "-l", "INFO"],
            env=project.environ, cwd=project.folder, stdout=output, stderr=STDOUT,
        )  # fmt: skip
    try:
        assert project.run(OWN_TASKS).splitlines()[-1] == "One two"
        wait_for(lambda: "article 7: One two" in log.read_text(), explain=log.read_text)
        for label in LABELS:
            simulator.fault(label, status=400)
        project.run("from shop import summarise; summarise.delay(8, 'A text').get(timeout=120)")
        wait_for(lambda: "article 8: InvalidRequest: " in log.read_text(), explain=log.read_text)
    finally:
        worker.kill_session()
