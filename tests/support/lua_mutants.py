"""
Every small mistake one could make in the Lua of the breaker, one at a time.

A mutant changes one place of one line: a comparison, a sign, a bound, a number, a constant, a
field taken for its neighbour; or leaves a statement out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.resources import files

from breaker.redis_storage import Scripts

SHARED = "breaker"
SWAPS = [
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "),
    (r" == ", " ~= "), (r" ~= ", " == "), (r" and ", " or "), (r" or ", " and "), (r"\bnot ", ""),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " / "), (r" \^ ", " * "),
    (r"math\.max", "math.min"), (r"math\.min", "math.max"), (r"math\.floor", "math.ceil"),
    (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
    (r"\b0\b", "1"), (r"\b1\b", "0"), (r"\b1\b", "2"), (r"\b2\b", "3"), (r"\b1000\b", "1024"),
    (r"'closed'", "'open'"), (r"'open'", "'half-open'"), (r"'half-open'", "'closed'"),
    (r"'success'", "'neutral'"), (r"'failure'", "'neutral'"),
    (r"\bb\.failures\b", "b.successes"), (r"\bb\.successes\b", "b.failures"),
    (r"\bb\.open_until_ms\b", "b.held_until_ms"), (r"\bb\.held_until_ms\b", "b.open_until_ms"),
    (r"\bb\.open_for_ms\b", "b.held_for_ms"), (r"\bb\.held_for_ms\b", "b.open_for_ms"),
    (r"\bopen_ms\b", "cap_ms"), (r"\bfail_max\b", "threshold"), (r"\bthreshold\b", "max_probes"),
    (r"\bb\.state\b", "from"), (r"\bb\.since_ms\b", "b.open_until_ms"),
]  # fmt: skip
# A line that can be left out and leaves Lua that still parses.
STATEMENT = re.compile(r"^\s*(?:[\w.\[\]#+, ]+ = [^{]+|[\w.]+\(.*\)|if .* end|for .* end|\w+\(\))$")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: in this file, on this line (from 0), these words in place of that line."""

    file: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        """Say where, and what became what."""
        after = self.after.strip() or "(left out)"
        return f"{self.file}.lua:{self.line + 1}: {self.before.strip()}  →  {after}"

    def scripts(self) -> Scripts:
        """Return all scripts, with this mistake in them."""
        return compose({**sources(), self.file: self._mistaken()})

    def _mistaken(self) -> str:
        lines = sources()[self.file].splitlines()
        lines[self.line] = self.after
        return "\n".join(lines) + "\n"


def sources() -> dict[str, str]:
    """Read what the package ships, file by file."""
    folder = files("breaker") / "scripts"
    names = [SHARED, *(field.name for field in fields(Scripts))]
    return {name: (folder / f"{name}.lua").read_text() for name in names}


def compose(texts: dict[str, str]) -> Scripts:
    """Put what the scripts share in front of each, as the storage does."""
    return Scripts(**{f.name: texts[SHARED] + texts[f.name] for f in fields(Scripts)})


def mutants() -> Iterator[Mutant]:
    """Yield every mistake, in the order of the files and lines."""
    for file, text in sources().items():
        for number, line in enumerate(text.splitlines()):
            code = line.split("--")[0].rstrip()
            if not code or "'TIME'" in code:
                continue
            seen = {line}
            for after in _changed(code):
                if after not in seen:
                    seen.add(after)
                    yield Mutant(file, number, line, after)


def _changed(code: str) -> Iterator[str]:
    for old, new in SWAPS:
        for found in re.finditer(old, code):
            yield code[: found.start()] + new + code[found.end() :]
    if STATEMENT.match(code) and not code.lstrip().startswith(("local", "return")):
        yield ""
