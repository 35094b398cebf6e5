"""How to reach a provider: what a key and a URL may be."""

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
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


BASE_URL = text("a URL like https://host/path (no user or password in it)", _is_base_url)

API_KEY = text(
    # An HTTP header cannot carry more, and the HTTP library would say so with the key in its error.
    "visible ASCII characters alone (does a space or a line break hang on the key?)",
    lambda value: value.isascii() and value.isprintable() and " " not in value,
    secret=True,
)
