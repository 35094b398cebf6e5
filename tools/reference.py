"""
Write docs/reference.md: the public API, from the docstrings and the annotations in the source.

    make reference

griffe reads the source without importing it. What is public is what a package lists in `__all__`,
and for modules without one, what PAGE names here.
"""

from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "reference.md"
PAGE = {
    "breakwater": (
        "Enqueue prompts, wait for their answers, stream and cancel them: "
        "`from breakwater import complete`.",
        ("complete", "CompletionOptions", "AsyncResult", "Result", "Prompt", "stream", "Event"),
    ),
    "breakwater.enqueueing.interface": (
        "Celery's options of a call, for `apply_async` and `delay_many`.",
        ("ApplyOptions", "DeliveryOptions"),
    ),
    "breakwater.workflows": (
        "Several completions, each built on those before it.",
        ("workflow", "Workflow", "Run", "Stage", "Loop", "Until"),
    ),
    "breakwater.langchain": ("Roles as LangChain chat models.", ("ChatBreakwater",)),
    "breaker": ("Circuit breakers that a fleet shares; usable without the rest.", ()),
    "tasks.operations.operator": (
        "What an operator can change, as the commands do it; for programs and pages.",
        ("Operator", "ReloadReply"),
    ),
    "tasks.operations.dead_letters": ("Read dead letters.", ("DeadLetter", "LetterFilter")),
    "breakwater.messaging.journal": ("Read who did what.", ("Operation", "Operations", "Command")),
}
"""The modules, in order, with an introduction and their public names; none: those of `__all__`."""
ERRORS = "breakwater.errors"
STANDS_FOR = {
    ("breakwater", "complete"): "CompletionTask",
    ("breakwater.workflows", "workflow"): "Workflows",
}
"""Objects, and the classes that document them."""
INTERNAL = {"of", "as_dict", "from_dict"}
"""Methods by which our own modules build, write and read public objects."""
STARS = {
    str(griffe.ParameterKind.var_positional): "*",
    str(griffe.ParameterKind.var_keyword): "**",
}
"""What stands before a parameter that takes all the others."""
HEAD = """# Reference

The public API, with shapes, units and errors. `make reference` writes this page from the
docstrings; edit those. The pages on [completions](completions.md), [workflows](workflows.md)
and the [breaker](breaker.md) explain how to use it.
"""


def page() -> str:
    """Return the whole page."""
    packages = {
        name: griffe.load(name, search_paths=[ROOT], docstring_parser="google")
        for name in {module.partition(".")[0] for module in PAGE}
    }
    parts = [HEAD]
    for module, (introduction, names) in PAGE.items():
        package, _, rest = module.partition(".")
        source = packages[package]
        if rest:
            source = source[rest]
        parts += [f"## {module}", introduction]
        for name in names or source.exports or ():
            described = source[STANDS_FOR.get((module, str(name)), str(name))]
            parts += _object(str(name), _target(described))
    parts += _errors(packages["breakwater"]["errors"])
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _target(described: griffe.Object | griffe.Alias) -> griffe.Object:
    if isinstance(described, griffe.Alias):
        return described.final_target
    return described


def _object(name: str, described: griffe.Object) -> Iterator[str]:
    yield f"### {name}"
    if isinstance(described, griffe.Function):
        yield from _function(described)
    elif isinstance(described, griffe.Class):
        yield from _class(name, described)
    else:
        yield from _value(described)


def _value(described: griffe.Object) -> Iterator[str]:
    if isinstance(described, griffe.Attribute) and described.annotation:
        yield f"`{described.name}: {described.annotation}`"
    yield from _docstring(described)


def _function(function: griffe.Function) -> Iterator[str]:
    text = _signature(function)
    if "async" in function.labels:
        text = f"async {text}"
    yield f"```text\n{text}\n```"
    yield from _docstring(function)


def _signature(function: griffe.Function) -> str:
    """Return name, parameters and result; on several lines if they are longer than a line."""
    parameters = [p for p in function.parameters if p.name not in {"self", "cls"}]
    texts: list[str] = []
    keyword_only = positional_only = False
    for parameter in parameters:
        kind = parameter.kind
        if positional_only and kind is not griffe.ParameterKind.positional_only:
            texts.append("/")
        positional_only = kind is griffe.ParameterKind.positional_only
        if kind is griffe.ParameterKind.keyword_only and not keyword_only:
            texts.append("*")
        keyword_only = keyword_only or kind in {
            griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional,
        }  # fmt: skip
        texts.append(_parameter(parameter))
    result = ""
    if function.returns:
        result = f" -> {function.returns}"
    line = f"{function.name}({', '.join(texts)}){result}"
    if len(line) <= 96:
        return line
    return f"{function.name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){result}"


def _parameter(parameter: griffe.Parameter) -> str:
    text = STARS.get(str(parameter.kind), "") + parameter.name
    if parameter.annotation:
        text += f": {parameter.annotation}"
    if parameter.default is not None and str(parameter.kind) not in STARS:
        text += f" = {parameter.default}"
    return text


def _class(name: str, described: griffe.Class) -> Iterator[str]:
    yield from _docstring(described)
    attributes, methods = [], []
    for member in described.members.values():
        if member.is_alias or member.name.startswith("_") or member.name in INTERNAL:
            continue
        if isinstance(member, griffe.Attribute):
            attributes.append(member)
        elif isinstance(member, griffe.Function) and member.docstring:
            methods.append(member)
    yield from _attributes(attributes, _meanings(described))
    for method in methods:
        yield f"#### {name}.{method.name}"
        yield from _function(method)


def _meanings(described: griffe.Class) -> dict[str, str]:
    """Return the meanings that a class's docstring has of its attributes."""
    return {
        each.name: _line(each.description).replace("|", "\\|")
        for section in _sections(described)
        if isinstance(section, griffe.DocstringSectionAttributes)
        for each in section.value
    }


def _attributes(
    attributes: list[griffe.Attribute], meanings: dict[str, str] | None = None
) -> Iterator[str]:
    rows = [
        _row(
            f"`{each.name}`",
            _code(each.annotation),
            _summary(each) or (meanings or {}).get(each.name, ""),
        )
        for each in attributes
        if each.annotation or each.docstring
    ]
    if rows:
        yield "\n".join(["| attribute | type | meaning |", "|---|---|---|", *rows])


def _errors(module: griffe.Object) -> Iterator[str]:
    """Yield one table: the tree is at the head of the module, and the verdicts on another page."""
    yield f"## {ERRORS}"
    yield (
        "Every error that a caller or a worker can meet. `args` is `(message, details)`; "
        "[architecture](architecture.md#the-verdicts) says what each means for a chain."
    )
    rows = [
        _row(f"`{each.name}`", _code(each.bases[0]), _summary(each))
        for each in module.members.values()
        if isinstance(each, griffe.Class) and each.bases and each.docstring
    ]
    yield "\n".join(["| error | kind of | meaning |", "|---|---|---|", *rows])
    base = module["BreakwaterError"]
    yield from _attributes([each for each in base.members.values() if each.is_attribute])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: object) -> str:
    if not text:
        return ""
    return f"`{text}`".replace("|", "\\|")


def _summary(described: griffe.Object) -> str:
    """Return the first paragraph of a docstring on one line."""
    if not described.docstring:
        return ""
    paragraph = described.docstring.value.strip().partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def _sections(described: griffe.Object) -> list[griffe.DocstringSection]:
    if not described.docstring:
        return []
    return described.docstring.parse("google")


def _docstring(described: griffe.Object) -> Iterator[str]:
    for section in _sections(described):
        match section:
            case griffe.DocstringSectionText():
                yield _text(section.value)
            case griffe.DocstringSectionReturns() | griffe.DocstringSectionYields():
                lines = " ".join(_line(each.description) for each in section.value)
                yield f"{section.kind.value.capitalize()}: {lines}"
            case griffe.DocstringSectionParameters():
                yield _items(f"`{each.name}`: {_line(each.description)}" for each in section.value)
            case griffe.DocstringSectionRaises():
                yield _items(
                    f"raises `{each.annotation}`: {_line(each.description)}"
                    for each in section.value
                )
            case griffe.DocstringSectionAdmonition():
                yield f"{section.title}: {_line(section.value.description)}"


def _items(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Return prose as it is, and indented examples as blocks."""
    lines: list[str] = []
    example = False
    for line in text.strip("\n").splitlines():
        indented = line.startswith("    ")
        if indented and not example:
            lines.append("```text")
        if not indented and example and line:
            lines = [*"\n".join(lines).rstrip("\n").splitlines(), "```", ""]
        example = indented or (example and not line)
        if example:
            line = line.removeprefix("    ")  # noqa: PLW2901 - the same line, as it is shown
        lines.append(line)
    if example:
        lines.append("```")
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(page())
