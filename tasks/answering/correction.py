"""The correction of an answer that violates its schema: the same target is asked once more."""

from collections.abc import Sequence
from dataclasses import dataclass

from breakwater.calls.schema import ParsedAnswer
from breakwater.content import Message
from breakwater.errors import SchemaViolated
from tasks.providers.base import Completion


@dataclass(frozen=True, slots=True)
class Violation:
    """An answer, and the rule of its schema that it violates."""

    completion: Completion
    reading: ParsedAnswer

    @property
    def can_be_corrected(self) -> bool:
        """
        Whether the same model may do better.

        A model that ran out of room would run out again. One that refuses does not care for a
        schema. And where validation was stopped, there is no fault that could be corrected.
        """
        has_text = bool(self.completion.text.strip())
        has_advice = bool(self.reading.advice)
        return self.completion.finish_reason == "stop" and has_text and has_advice

    def error(self, provider: str) -> SchemaViolated:
        """Return the error that names place and rule, with the usage of the answer."""
        return SchemaViolated(
            f"{provider}: the answer {self.reading.fault}; a simpler schema, or a more capable "
            f"model, may do better",
            request_id=self.completion.request_id,
            usage=self.completion.usage.as_dict(),
        )

    def correction(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the conversation with the answer, and with what to correct in it."""
        return (
            *messages,
            Message("assistant", self.completion.text),
            Message(
                "user",
                f"That answer does not satisfy the JSON Schema: {self.reading.advice}. Answer "
                f"again, with the corrected JSON alone.",
            ),
        )
