"""The wheel and the sdist, built from a clean clone and installed into empty environments."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import redis

from simulator.client import Simulator
from tests.support.spawner import run, spawn
from tests.support.waiting import wait_for

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
BESIDE_CELERY = {"breakwater-llm", "hiredis", "pyyaml"}
"""What the plain install brings that `celery[redis]` does not."""
MAX_PACKAGES, MAX_MB = 15, 40
OURS = {"breaker", "breakwater", "simulator", "tasks", "workers"}

ENQUEUE = """
import tasks, workers, breaker
assert tasks.OWN and workers.OWN and breaker.OWN
from breakwater import complete
first = complete.apply_async(("coder", "one"), {"stream": True}, task_id="first")
second = complete.delay_many([("coder", "two"), ("coder", "three")])
print(first.id, *(result.id for result in second))
"""
READ = """
import sys
from breakwater import app, stream
print("".join(event.text for event in stream("first", timeout=60)))
for task_id in sys.argv[1:]:
    print(app.AsyncResult(task_id).get(timeout=60)["text"])
"""
EXTRAS = """
import os
from breaker import Breakers
from breakwater import complete, errors
from breakwater.langchain import ChatBreakwater
from simulator.client import Simulator
print(Breakers.from_url(os.environ["REDIS_URL"]).get("any").call(lambda: "called"))
complete.delay("coder", "a secret prompt")
try:
    ChatBreakwater(role="coder", timeout=1).invoke("another secret prompt")
except errors.DeadlineExceeded:
    print("asked by LangChain")
with Simulator.start() as simulator:
    print(simulator.hits())
try:
    complete.delay("coder", "hi", schema={"type": "strnig"})
except errors.InvalidOption as fault:
    print(fault)
"""


class Environment:
    """A virtual environment without pip, and a code base that has packages of our names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        self.code_base = folder / "project"
        for name in ("tasks", "workers", "breaker"):
            (self.code_base / name).mkdir(parents=True)
            (self.code_base / name / "__init__.py").write_text("OWN = True\n")

    def pip(self, *words: str) -> str:
        """Run pip on this environment."""
        return _checked([sys.executable, *PIP, "--python", str(self.python), *words])

    def run(self, code: str, *arguments: str, **environ: str) -> str:
        """Run a script of the code base, whose folder comes first on the path."""
        script = self.code_base / "script.py"
        script.write_text(code)
        done = run([self.python, script, *arguments], env=self.environ | environ, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def packages(self) -> Path:
        """Return the folder that pip installs into."""
        (path,) = self.folder.glob("venv/lib/python*/site-packages")
        return path

    @contextmanager
    def worker(self, **environ: str) -> Iterator[None]:
        """Run a worker in an empty directory."""
        log = self.folder / "worker.log"
        (self.folder / "empty").mkdir()
        with log.open("wb") as output:
            child = spawn(
                [self.python, "-m", "celery", "-A", "workers", "worker", "-P", "threads", "-l", "INFO"],
                env=self.environ | environ, cwd=self.folder / "empty", stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait_for(
                lambda: " ready." in log.read_text() or child.poll() is not None,
                explain=log.read_text,
            )
            yield
        finally:
            child.kill_session()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _checked(words: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a clean clone, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    _checked(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(folder / "clone")])
    _checked([sys.executable, "-m", "build", "--outdir", str(folder / "dist")], folder / "clone")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """An environment that has the client alone."""
    environment = Environment(tmp_path_factory.mktemp("client"))
    environment.pip("install", str(wheel))
    return environment


def test_an_index_would_take_both_files(dist: Path) -> None:
    """Their metadata is complete, and the README can be rendered."""
    files = sorted(dist.iterdir())

    assert [path.name.partition("-")[0] for path in files] == ["breakwater_llm"] * 2
    report = _checked([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)])
    assert report.count("PASSED") == 2


def test_the_wheel_has_our_packages_and_nothing_else(wheel: Path) -> None:
    """No test, benchmark or tool; scripts, migrations, type markers and the docs' pages are there."""
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = _checked(["git", "ls-files", *OURS], ROOT).splitlines()
    pages = _checked(["git", "ls-files", "docs/*.md"], ROOT).splitlines()

    assert names == {*tracked, *(f"workers/{page}" for page in pages)}


def test_the_sdist_has_all_that_a_build_needs_and_no_test(dist: Path) -> None:
    """The wheel is built from it."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}

    assert folders == {*OURS, "docs", "breakwater_llm.egg-info"}


def test_the_metadata_names_the_licence_and_every_extra(wheel: Path) -> None:
    """As pyproject.toml has them."""
    with ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def test_the_client_is_small(client: Environment) -> None:
    """It brings two packages that Celery does not, and takes less than 40 MB."""
    report = client.pip(
        "install", "--dry-run", "--ignore-installed", "--report", "-", "celery[redis]"
    )
    celerys = {_canonical(each["metadata"]["name"]) for each in json.loads(report)["install"]}
    folder = client.packages()
    installed = {_canonical(each.name) for each in distributions(path=[str(folder)])}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert installed - celerys == BESIDE_CELERY
    assert len(BESIDE_CELERY) < MAX_PACKAGES
    assert size < MAX_MB * 1e6


@pytest.mark.parametrize("others", [("SQLAlchemy<2", "openai<2"), ("pydantic<2", "httpx<0.28")])
def test_the_client_installs_beside_older_releases(
    client: Environment, wheel: Path, others: tuple[str, ...]
) -> None:
    """Of the libraries whose newest releases a worker needs."""
    client.pip("install", "--dry-run", str(wheel), *others)


@pytest.mark.parametrize("command", ["breakwater queues", "celery -A workers worker"])
def test_what_needs_the_worker_part_says_so_in_one_line(client: Environment, command: str) -> None:
    """Exit code 78, and the command that installs it; no traceback."""
    program, *arguments = command.split()
    (client.folder / "empty").mkdir(exist_ok=True)

    done = run(
        [client.python.parent / program, *arguments],
        env=client.environ, cwd=client.folder / "empty", fresh=True,
    )  # fmt: skip

    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.endswith("run pip install 'breakwater-llm[worker]'")


def test_the_client_refuses_what_its_python_can_judge(client: Environment) -> None:
    """Without jsonschema-rs: a schema's size, its draft and its references, and all other options."""
    printed = client.run("""
from breakwater import complete, errors
for schema in ({"$ref": "#/$defs/none"}, {"$schema": "http://x"}, {"enum": ["x" * 300_000]}):
    try:
        complete.delay("coder", "hi", schema=schema)
    except errors.InvalidOption as fault:
        print(fault)
""")

    assert printed.count("schema is not a valid JSON Schema: ") == 3


def test_each_extra_of_the_client_brings_what_it_needs(
    tmp_path: Path, wheel: Path, redis_url: str
) -> None:
    """Without the worker part: the breaker, encryption, LangChain and the full check of schemas."""
    environment = Environment(tmp_path)
    environment.pip("install", f"{wheel}[breaker,encryption,langchain,schema,simulator]")
    shutil.rmtree(environment.code_base / "breaker")
    key = environment.run(
        "from cryptography.fernet import Fernet as f; print(f.generate_key().decode())"
    )

    printed = environment.run(
        EXTRAS,
        REDIS_URL=redis_url,
        BREAKWATER_ENCRYPTION_KEYS=key.strip(),
    )

    *called, refused = printed.splitlines()
    assert called == ["called", "asked by LangChain", "[]"]
    assert refused.endswith("at /type: it breaks 'anyOf'")
    waiting = redis.Redis.from_url(redis_url).lrange("celery", 0, -1)
    assert waiting
    assert not [message for message in waiting if b"secret" in message]


def test_the_client_enqueues_and_the_worker_part_answers(
    tmp_path: Path, wheel: Path, redis_url: str
) -> None:
    """The client alone puts prompts into Redis; `[worker]` in the same environment answers them."""
    environment = Environment(tmp_path)
    environment.pip("install", str(wheel))

    task_ids = environment.run(ENQUEUE, REDIS_URL=redis_url).split()
    environment.pip("install", f"{wheel}[worker]")

    with Simulator.start() as simulator:
        simulator.settings("local", answers=["Answered."])
        roles = tmp_path / "roles.yaml"
        roles.write_text(
            f"providers:\n  local: {{adapter: openai-chat, model: m, api_key: k, "
            f'base_url: "{simulator.url("local")}/v1"}}\nroles:\n  coder: {{chain: [local]}}\n'
        )
        with environment.worker(REDIS_URL=redis_url, ROLES_FILE=str(roles)):
            answers = environment.run(READ, *task_ids, REDIS_URL=redis_url)

    assert answers.splitlines() == ["Answered."] * 4
    environment.pip("check")
    page = _checked([str(environment.python.with_name("breakwater")), "docs", "redis"], tmp_path)
    assert page == (ROOT / "docs" / "redis.md").read_text()
