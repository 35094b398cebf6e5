"""Every code block of the pages is of a known kind, and can be read as that kind."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.answering.settings_loader import load_settings
from tests.support.pages import ALL, PAGES, Block, blocks_of
from tests.support.servers import Process
from tests.support.shell import commands_of, fault_of

KINDS = {"bash", "conf", "json", "python", "text", "toml", "yaml"}
"""`text` is what a program prints, and `conf` the configuration of Redis."""
ROLES_FILE_KEYS = {"providers", "roles", "workflows", "params", "default_provider"}
BASE = """
providers:
  {claude: {adapter: anthropic, model: m, api_key: k}, gpt: {adapter: openai, model: m, api_key: k},
   gemini: {adapter: google, model: m, api_key: k},
   local: {adapter: openai-chat, model: m, base_url: "http://127.0.0.1:8000/v1", api_key: none}}
roles:
  {clarifier: {chain: [claude]}, planner: {chain: [gpt]}, coder: {chain: [local]}, reviewer: {chain: [gemini]}}
"""
"""What a block that shows a part of a roles file leaves to the reader."""

READ_ELSEWHERE = {
    "adapter: acme": "tests/workers/test_own_adapter.py installs the package that has this adapter",
}
"""Parts of roles files that need more than this process has, by what they contain."""


def of(*languages: str) -> list[Any]:
    return [pytest.param(each, id=each.place) for each in ALL if each.language in languages]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """So that it can be checked here, and coloured there."""
    unknown = [each.place for each in blocks_of(page) if each.language not in KINDS]

    assert not unknown, f"write one of {', '.join(sorted(KINDS))} behind the fence of {unknown}"


@pytest.mark.parametrize("block", of("bash"))
def test_every_command_exists(block: Block) -> None:
    """With its subcommands and its options."""
    commands = list(commands_of(block.text))

    assert commands
    assert not [fault for words in commands if (fault := fault_of(words))]


@pytest.mark.parametrize("block", of("python"))
def test_python_can_be_compiled(block: Block) -> None:
    """As a module; test_running.py runs it."""
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("block", of("yaml"))
def test_a_part_of_a_roles_file_is_read_without_a_fault(block: Block, tmp_path: Path) -> None:
    """By a worker's reader; providers and roles that a part does not show are added."""
    documents = list(yaml.safe_load_all(block.text))
    if not (isinstance(documents[0], dict) and documents[0].keys() <= ROLES_FILE_KEYS):
        return  # YAML of another program
    if any(words in block.text for words in READ_ELSEWHERE):
        return
    is_whole = {"providers", "roles"} <= documents[0].keys()
    whole = {} if is_whole else yaml.safe_load(BASE)
    for section, content in documents[0].items():
        whole[section] = (
            {**whole.get(section, {}), **content} if isinstance(content, dict) else content
        )
    path = tmp_path / "roles.yaml"
    path.write_text(yaml.safe_dump(whole))
    keys = {f"{name}_API_KEY": "k" for name in ("ANTHROPIC", "OPENAI", "GEMINI")}

    assert load_settings({**keys, "ROLES_FILE": str(path)}).roles


READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
}


@pytest.mark.parametrize("block", of("json", "toml"))
def test_json_and_toml_can_be_read(block: Block) -> None:
    """By Python's readers."""
    assert READERS[block.language](block.text)


@pytest.mark.parametrize("block", of("conf"))
def test_a_configuration_of_redis_starts_a_server(block: Block) -> None:
    """It ends if it does not know a directive."""
    with Process(config=block.text) as server:
        for line in block.text.splitlines():
            name, _, value = line.partition(" ")
            assert server.client.config_get(name) == {name: value}


@pytest.mark.parametrize(
    "command",
    [
        "breakwater brakers", "breakwater ask coder hi --no-such", "make nothing", "celery -A workers wroker",
        "python -m simulator nothing", "python -m no.such", "celery -A workers worker --no-such", "unheard-of",
        "pip install 'breakwater" "[worker]'", "REDIS_URL=x breakwater brakers", "true && make nothing",
        "docker compose exec worker breakwater brakers", ".venv/bin/breakwater brakers > file",
    ],
)  # fmt: skip
def test_what_is_wrong_would_be_found(command: str) -> None:
    """The check of commands sees what it is there for."""
    assert any(fault_of(words) for words in commands_of(command) if words != ["true"])


def test_what_is_left_out_of_a_command() -> None:
    """Assignments, comments, redirections, pipes and continued lines."""
    text = "A=1 make demo >x  # why\n$ breakwater ask \\\n  coder 'a # b' | cat && make test"

    assert list(commands_of(text)) == [
        ["make", "demo"], ["breakwater", "ask", "coder", "a # b"], ["cat"], ["make", "test"],
    ]  # fmt: skip
