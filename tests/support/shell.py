"""The commands of a shell block, and whether each of them exists."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from celery.bin.celery import celery as celery_cli
from packaging.requirements import InvalidRequirement, Requirement

from simulator.__main__ import _parser
from workers.cli import cli

ROOT = Path(__file__).parents[2]
OTHERS = frozenset(
    {
        "apt", "cat", "cd", "chmod", "cp", "curl", "docker", "export", "git", "helm", "journalctl", "kill",
        "kubectl", "mkdir", "mv", "pg_dump", "pg_restore", "psql", "redis-cli", "redis-server", "rm", "scp",
        "sqlite3", "sudo", "systemctl", "tar", "du", "createdb", "valkey-cli", "docker-compose", "printf",
        "echo", "install", "useradd", "ssh", "rsync", "source", "uvicorn",
    }
)  # fmt: skip
"""Programs of others: how they are called is theirs."""
SEPARATORS = frozenset({"|", "||", "&&", "&", ";"})
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
WRAPPERS = (("docker", "compose", "exec", "worker"), ("sudo", "-u", "breakwater"), ("exec",))


def commands_of(text: str) -> Iterator[list[str]]:
    """Return the words of each simple command, without assignments, redirections and prompts."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words: list[str] = []
        for word in (*lexer, ";"):
            if word in SEPARATORS:
                if simple := _simple(words):
                    yield simple
                words = []
            else:
                words.append(word)


def _simple(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word and word[0] in "<>":
            words = words[:number]
            break
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    for wrapper in WRAPPERS:
        if tuple(words[: len(wrapper)]) == wrapper:
            words = words[len(wrapper) :]
    if words:
        words[0] = re.sub(r"^(\.venv|venv|client|/opt/breakwater)/bin/", "", words[0])
    return words


def fault_of(words: list[str]) -> str:
    """Return what is wrong with a command; empty if it, its options and its subcommands exist."""
    program, *arguments = words
    if program in OTHERS:
        return ""
    check = CHECKS.get(program)
    if check is None:
        return f"{program!r} is not a program that tests/support/shell.py can check"
    return "" if check(arguments) else f"{' '.join(words)!r} does not exist"


def _make(arguments: list[str]) -> bool:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return all(word in targets for word in arguments if word.isalpha() and word.islower())


def _python(arguments: list[str]) -> bool:
    match arguments:
        case ["-m", "simulator", *rest]:
            choices = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
            return not rest or rest[0][0] == "-" or all(w in choices for w in rest[0].split("|"))
        case ["-m", "celery", *rest]:
            return _celery(rest)
        case ["-m", str(module), *_]:
            file = ROOT / module.replace(".", "/")
            ours = file.with_suffix(".py").is_file() or (file / "__main__.py").is_file()
            return ours or module in {"venv", "pip", "build", "compileall", "pytest"}
        case ["-c", str(code)]:
            compile(code, "<command>", "exec")
            return True
    return False


def _pip(arguments: list[str]) -> bool:
    """Every requirement can be read, and ours names extras that we have."""
    command, *words = arguments
    for word in words:
        if word.startswith("-") or word in {".", ".[worker]"}:
            continue
        try:
            named = Requirement(word)
        except InvalidRequirement:
            return False
        if named.name == "breakwater":
            return False
    return command in {"install", "uninstall"}


def _breakwater(arguments: list[str]) -> bool:
    node: Any = typer.main.get_command(cli)
    known = {"--help", "--version", "--install-completion"}
    for word in arguments:
        children = getattr(node, "commands", {})
        if word.startswith("--"):
            options = {name for param in node.params for name in param.opts} | known
            if word.partition("=")[0].rstrip(",.;:") not in options:
                return False
        elif word in children:
            node = children[word]
        elif children and word.isalpha() and word.islower():
            return False
    return True


def _celery(arguments: list[str]) -> bool:
    """The subcommand and its options exist; `inspect` and `control` read their own words."""
    node: Any = celery_cli
    known = {"--help", "--version", "--grace"}
    for word in arguments:
        option = word.partition("=")[0]
        children = getattr(node, "commands", {})
        if option.startswith("-"):
            names = {name for param in node.params for name in (*param.opts, *param.secondary_opts)}
            if option not in names | known:
                return False
        elif word in children:
            node = children[word]
        elif word == "flower":  # a plugin
            return True
    return node is not celery_cli


CHECKS: dict[str, Callable[[list[str]], bool]] = {
    "breakwater": _breakwater,
    "celery": _celery,
    "django-admin": lambda _: True,
    "make": _make,
    "pip": _pip,
    "pytest": lambda arguments: not arguments,
    "python": _python,
    "python3": _python,
}
