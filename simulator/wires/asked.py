"""A request in terms common to all wires; each wire's reader fills it in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the request offers; `schema` describes its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation, or one item if the vendor has items."""

    role: str
    """`user`, `assistant` or `tool`, for all vendors."""
    text: str = ""
    images: int = 0
    documents: int = 0
    calls: tuple[str, ...] = ()
    """The names that later results refer to: the calls' ids, at Google the tools' names."""
    results: tuple[str, ...] = ()
    """The calls whose results it contains."""


@dataclass(frozen=True, slots=True)
class Params:
    """The request's parameters, in its own terms; None if a parameter is absent."""

    effort: str | int | None = None
    """A level, or Google's budget in tokens."""
    stop: Sequence[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The request for the log: counts, names and numbers, never a text."""

    turns: int
    """Messages of one speaker in a row count as one; system messages do not count."""
    images: int
    documents: int
    tools: tuple[str, ...]
    tool_choice: str | None
    """`auto`, `none`, `required` or a tool's name; None if absent."""
    tool_results: int
    schema: bool
    strict: bool | None
    """As sent beside the schema; OpenAI alone has it."""
    effort: str | int | None
    stop: Sequence[str] | None
    seed: int | None
    temperature: float | None
    max_output_tokens: int | None
    prompt_cache: str | bool
    """Anthropic: whether a block is marked; OpenAI: the key; Google: the name; False if none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for an answer."""

    model: str
    size: int
    """The number of characters of the whole input."""
    stream: bool
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    schema: Mapping[str, Any] | None = None
    """The schema that the answer must satisfy."""
    strict: bool | None = None
    params: Params = field(default_factory=Params)
    prompt_cache: str | bool = False
    prefix: tuple[tuple[object, bool], ...] = ()
    """The blocks of the prompt in order, each with whether a cached prefix may end there."""
    held_tokens: int = 0
    """The tokens of the cached content that it names; Google alone has these."""
    usage_event: bool = True
    """Whether a stream ends with its usage; only Chat Completions makes it optional."""

    @property
    def text(self) -> str:
        """The user's last text."""
        said = (turn.text for turn in reversed(self.turns) if turn.role == "user" and turn.text)
        return next(said, "")

    @property
    def media(self) -> int:
        """The number of images and documents."""
        return sum(turn.images + turn.documents for turn in self.turns)

    @property
    def summary(self) -> Summary:
        """The request as the log shows it."""
        return Summary(
            turns=sum(1 for _ in groupby(self.turns, key=lambda turn: turn.role)),
            images=sum(turn.images for turn in self.turns),
            documents=sum(turn.documents for turn in self.turns),
            tools=tuple(tool.name for tool in self.tools),
            tool_choice=self.tool_choice,
            tool_results=sum(len(turn.results) for turn in self.turns),
            schema=self.schema is not None,
            strict=self.strict,
            effort=self.params.effort,
            stop=self.params.stop,
            seed=self.params.seed,
            temperature=self.params.temperature,
            max_output_tokens=self.params.max_output_tokens,
            prompt_cache=self.prompt_cache,
        )
