"""The value types of a provider's key and base URL."""

from urllib.parse import urlsplit

from breakwater.calls.value_types import text


def _is_base_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return (
            url.scheme in {"http", "https"}
            and bool(url.hostname)
            and url.username is None
            and url.port != 0
            and value.isascii()
            and value.isprintable()
            and " " not in value
        )
    except ValueError:  # such as a port that is not a number, or half an IPv6 address
        return False


BASE_URL = text("a URL like https://host/path (no user or password in it)", _is_base_url)

API_KEY = text(
    # An HTTP header can contain nothing else, and the error of the HTTP library would show the key.
    "visible ASCII characters alone (does a space or a line break hang on the key?)",
    lambda value: value.isascii() and value.isprintable() and " " not in value,
    secret=True,
)
