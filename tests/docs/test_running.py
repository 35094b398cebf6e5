"""The examples of every page run as they stand, through a real worker and a real server."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, wait_for
from tests.support.pages import ALL, ROOT, Block, blocks_of
from tests.support.shell import OTHERS, commands_of
from tests.support.spawner import run

pytestmark = pytest.mark.slow
MODULES = {
    "docs/integrations.md": "test_integrations.py imports each of them",
    "docs/testing.md": "test_the_tests_of_the_page_pass runs pytest over them",
    "docs/providers.md": "tests/workers/test_own_adapter.py installs the package that they are",
}
"""Pages whose Python is files of a project, and what runs those."""
NOT_RUN = {
    "team.ainvoke(": "tests/langchain/test_langgraph.py runs it, with answers that end its loop",
}
"""Other Python that is run elsewhere, by what it contains."""
BEFORE = {
    "docs/backup.md": "from pathlib import Path; Path('answered.jsonl').write_text('')",
    "docs/breaker.md": "ask, prompt = (lambda prompt: prompt), 'hi'",
    "docs/completions.md": "from pathlib import Path; Path('report.pdf').write_bytes(b'%PDF-1.7')",
}
"""What a page leaves to the reader."""
COMMANDS_NOT_RUN = {
    r"breakwater (top|breakers --watch|demo)": "does not end by itself, or has tests of its own",
    r"breakwater why \S+-": "the id is an example",
    r"breakwater doctor": "tests/test_compose.py runs it; here the models are a simulator's",
    r"breakwater reload": "tests/workers/test_reload.py",
    r"celery -A workers worker": "the fleet is started by it",
    r"celery -A schedule beat": "test_integrations.py sends what it would",
    r"celery -A shop:shop": "test_integrations.py starts it",
    r"celery --broker=\S+ flower": "Flower is not installed; tests/workers/test_neighbours.py",
    r"make ": "this is one of its targets",
    r"pip ": "tests/test_wheel.py installs what we ship",
    r"python -m venv|client/bin|python -m compileall": "tests/test_wheel.py measures it",
    r"python -m benchmarks": "takes minutes",
    r"pytest": "test_the_tests_of_the_page_pass",
}
"""Commands that are not run here, and why; test_blocks.py knows that they exist."""
UNDO = {
    "breakwater pause": "breakwater resume",
    "breakwater breakers force-open": "breakwater breakers auto",
}
"""What a command leaves behind, and what takes it back."""
RUNNER = """
import json
namespace = {"__name__": "__main__"}
for page, line, text in json.loads(%r):
    exec(compile("\\n" * (line - 1) + text, page, "exec"), namespace)
"""


def python_of(page: str) -> list[Block]:
    return [
        each for each in blocks_of(page)
        if each.language == "python" and not any(words in each.text for words in NOT_RUN)
    ]  # fmt: skip


def runnable() -> list[tuple[str, list[str]]]:
    """Return place and words of each command that is run here."""
    return [
        (block.place, words)
        for block in ALL
        if block.language == "bash"
        for words in commands_of(block.text)
        if words[0] not in OTHERS
        and not any(re.match(pattern, " ".join(words)) for pattern in COMMANDS_NOT_RUN)
    ]


@pytest.mark.parametrize(
    "page",
    sorted({each.page for each in ALL if each.language == "python"} - MODULES.keys()),
)
def test_the_python_of_a_page_runs(page: str, docs_fleet: Fleet) -> None:
    """From its first line to its last, in one program."""
    blocks = [
        (each.page, each.line, each.text.replace("redis://127.0.0.1:6379/0", docs_fleet.environ["REDIS_URL"]))
        for each in python_of(page)
    ]  # fmt: skip

    docs_fleet.run(RUNNER % json.dumps([(page, 1, BEFORE.get(page, "")), *blocks]))


def test_a_callers_programs_pass_mypy_strict(tmp_path: Path) -> None:
    """The client's types know every line that these pages show."""
    programs = []
    for page in ("README.md", "docs/client.md", "docs/streaming.md"):
        programs.append(tmp_path / f"{Path(page).stem.lower()}.py")
        programs[-1].write_text("\n".join(block.text for block in python_of(page)))
    (fastapi,) = [each.text for each in ALL if each.text.startswith("# main.py")]
    programs.append(tmp_path / "main.py")
    programs[-1].write_text(fastapi)
    (tmp_path / "breakwater").symlink_to(ROOT / "breakwater")
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-breakwater.*]\nignore_errors = true\n"
        "[mypy-celery.*]\nignore_missing_imports = true\n"
    )

    done = run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", *programs],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, fresh=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_the_commands_of_the_pages_run(docs_fleet: Fleet) -> None:
    """Each ends well in a fleet that has answered a prompt and had no trouble."""
    docs_fleet.command("breakwater", "ask", "coder", "hi")
    wait_for((docs_fleet.folder / "ledger.db").exists)

    failed = {}
    for place, words in runnable():
        done = docs_fleet.command(*words)
        if done.returncode:
            failed[f"{place}: {' '.join(words)}"] = done.stdout + done.stderr
        for start, undo in UNDO.items():
            if " ".join(words).startswith(start):
                docs_fleet.command(*undo.split(), *words[len(start.split()) :])

    assert not failed


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """Its fixtures start a server, a worker and a simulator of their own."""
    for block in blocks_of("docs/testing.md"):
        if block.file:
            (tmp_path / block.file).write_text(block.text)

    done = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, timeout_s=300, fresh=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_nothing_is_left_out_for_no_reason() -> None:
    """Each entry of the tables above leaves something out."""
    commands = [
        " ".join(words)
        for each in ALL
        if each.language == "bash"
        for words in commands_of(each.text)
    ]

    assert all(any(words in each.text for each in ALL) for words in NOT_RUN)
    assert MODULES.keys() | BEFORE.keys() <= {each.page for each in ALL}
    for pattern in COMMANDS_NOT_RUN:
        assert any(re.match(pattern, command) for command in commands), pattern


@pytest.mark.parametrize("page", MODULES)
def test_a_page_of_modules_names_their_files(page: str) -> None:
    """A block without a name would be run by nobody."""
    if page != "docs/providers.md":
        assert all(each.file for each in blocks_of(page) if each.language == "python")
