"""What follows an answer that does not satisfy its schema: the same target is asked once more."""

from collections.abc import Sequence
from dataclasses import dataclass

from breakwater.calls.schema import Reading
from breakwater.content import Message
from breakwater.errors import SchemaViolated
from tasks.providers.base import Completion


@dataclass(frozen=True, slots=True)
class Violation:
    """An answer, and what is wrong with it."""

    completion: Completion
    reading: Reading

    @property
    def can_be_mended(self) -> bool:
        """
        Tell whether the same model may do better.

        One that ran out of room would again, one that refuses does not care for a schema, and of an
        answer whose validation was ended nothing is known that could be corrected.
        """
        says_something = bool(self.completion.text.strip())
        is_known = bool(self.reading.advice)
        return self.completion.finish_reason == "stop" and says_something and is_known

    def error(self, provider: str) -> SchemaViolated:
        """Return the error that tells place and rule, and what the answer has cost."""
        return SchemaViolated(
            f"{provider}: the answer {self.reading.fault}; a simpler schema, or a more capable "
            f"model, may do better",
            request_id=self.completion.request_id,
            usage=self.completion.usage.as_dict(),
        )

    def correction(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the conversation with the answer, and what to mend in it."""
        return (
            *messages,
            Message("assistant", self.completion.text),
            Message(
                "user",
                f"That answer does not satisfy the JSON Schema: {self.reading.advice}. Answer "
                f"again, with the corrected JSON alone.",
            ),
        )
