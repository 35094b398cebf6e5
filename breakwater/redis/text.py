"""Text as Redis returns it: bytes, or str from a client with `decode_responses`."""


def to_text(value: object) -> str:
    """Decode a reply of Redis; bytes that are not UTF-8 are replaced, never an error."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)
