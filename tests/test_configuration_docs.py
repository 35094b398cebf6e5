"""`docs/configuration.md` names every environment variable that the product reads, and no other."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
FLOORS = ("breaker", "breakwater", "tasks", "workers", "simulator")
NAME = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")
PROXY = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
COMPUTED: dict[tuple[str, str], set[str]] = {
    ("workers/otel.py", "f'OTEL_{signal}_EXPORTER'"): {
        "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER",
    },
    ("workers/otel.py", "_otlp(signal, 'ENDPOINT')"): {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    },
    ("workers/otel.py", "variable"): {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    },
    ("tasks/providers/http/host.py", "spelt"): PROXY,
    ("tasks/providers/http/host_faults.py", "name"): PROXY,
    # A roles file's own `${NAME}`.
    ("breakwater/config/document.py", "name"): set(),
    # One of the vendors' keys, as below.
    ("workers/demo/story.py", "key"): set(),
}  # fmt: skip
"""Reads whose name is not a constant, by file and expression, and the variables they mean."""
VENDORS = re.compile(r"[A-Z_]+_(API_KEY|BASE_URL|MODEL)")
VENDORS_READ_BY = "tasks/config/detection.py"
VENDORS_LISTED_IN = (VENDORS_READ_BY, "tasks/catalogue.py")
BY_LIBRARIES = {
    "TMPDIR": "tempfile.gettempdir()",
    "NO_COLOR": "rich",
    "COLUMNS": "rich",
    "OTEL_EXPORTER_OTLP_HEADERS": "opentelemetry-exporter-otlp",
}
"""Variables that no line of ours reads, and the call or the package that does."""


def constants(tree: ast.Module) -> dict[str, set[str]]:
    """Return a module's names for strings, or for tuples of strings, imported ones too."""
    found: dict[str, set[str]] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Tuple(names)], value=ast.Tuple(values)):
                for one, value in zip(names, values, strict=True):
                    found[ast.unparse(one)] = strings(value)
            case ast.Assign(targets=[ast.Name(name)], value=value):
                found[name] = strings(value)
            case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                found[name] = strings(value)
            case ast.ImportFrom(module=str(module), names=aliases):
                path = ROOT / f"{module.replace('.', '/')}.py"
                if module.split(".")[0] in FLOORS and path.exists():
                    theirs = constants_of(path)
                    for alias in aliases:
                        if alias.name in theirs:
                            found[alias.asname or alias.name] = theirs[alias.name]
    return found


@cache
def constants_of(path: Path) -> dict[str, set[str]]:
    """Return `constants` of a file; many files import it, on many ways."""
    return constants(ast.parse(path.read_text()))


def strings(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def reads(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expression of each variable that is read from `environ`, in every form of it."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="get" | "pop"), args=[name, *_]):
                if ast.unparse(owner).endswith("environ"):
                    yield name
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[name, *_]):
                yield name
            case ast.Subscript(value=owner, slice=name):
                if ast.unparse(owner).endswith("environ"):
                    yield name
            case ast.Compare(left=name, ops=[ast.In() | ast.NotIn()], comparators=[owner]):
                if ast.unparse(owner).endswith("environ"):
                    yield name
            case ast.keyword(arg="envvar", value=name):
                yield name


def modules() -> Iterator[tuple[str, ast.Module]]:
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def resolved() -> tuple[set[str], set[tuple[str, str]]]:
    """Return the variables that are read, and the reads whose names cannot be followed."""
    variables: set[str] = set()
    unknown: set[tuple[str, str]] = set()
    for path, tree in modules():
        own = constants(tree)
        if path in VENDORS_LISTED_IN:
            variables |= {text for text in strings(tree) if VENDORS.fullmatch(text)}
        for name in reads(tree):
            text = ast.unparse(name)
            if isinstance(name, ast.Constant):
                variables.add(str(name.value))
            elif text in own:
                variables |= own[text]
            elif (path, text) in COMPUTED:
                variables |= COMPUTED[path, text]
            elif looped := loop_over(tree, text, own):
                variables |= looped
            elif path != VENDORS_READ_BY:
                unknown.add((path, text))
    return {name for name in variables if NAME.fullmatch(name)}, unknown


def loop_over(tree: ast.Module, variable: str, known: dict[str, set[str]]) -> set[str]:
    """Return the strings that a `for` gives a variable, those of a module's table too."""
    for node in ast.walk(tree):
        match node:
            case ast.For(target=ast.Name(name), iter=over) if name == variable:
                tables = [each.id for each in ast.walk(over) if isinstance(each, ast.Name)]
                return strings(over).union(*(known.get(table, set()) for table in tables))
    return set()


def documented() -> set[str]:
    """Return the variables in the first column of the page's tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row) if NAME.fullmatch(name)}


def test_every_read_of_the_environment_can_be_followed() -> None:
    """A name that is put together needs a row in COMPUTED, or it could be missing unseen."""
    assert resolved()[1] == set()


def test_every_variable_that_is_read_is_on_the_page() -> None:
    """An operator finds each of them in one place."""
    assert resolved()[0] - documented() == set()


def test_the_page_names_no_variable_that_nobody_reads() -> None:
    """A variable that was renamed or removed leaves the page with its last reader."""
    assert documented() - resolved()[0] - BY_LIBRARIES.keys() == set()


def test_no_row_of_the_table_is_left_over() -> None:
    """What is read no more must not excuse a name on the page."""
    used = {(path, ast.unparse(name)) for path, tree in modules() for name in reads(tree)}

    assert COMPUTED.keys() - used == set()


@pytest.mark.parametrize(
    "line",
    [
        'os.environ.get("NEW_NAME")', 'os.environ["NEW_NAME"]', '"NEW_NAME" in os.environ',
        'os.getenv("NEW_NAME")', 'environ.get("NEW_NAME", "")', 'self._environ.get("NEW_NAME")',
        'Option(["--new"], envvar="NEW_NAME")',
    ],
)  # fmt: skip
def test_each_form_of_reading_is_seen(line: str) -> None:
    """Whatever form a new read has, the tests above find it."""
    assert [ast.literal_eval(name) for name in reads(ast.parse(line))] == ["NEW_NAME"]
