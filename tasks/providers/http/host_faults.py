"""Explain why a provider cannot be built on this host, without a key or a password."""

import os
import ssl

from breakwater.errors import HostFault

_SETTINGS = {"all_proxy", "http_proxy", "https_proxy", "ssl_cert_file", "ssl_cert_dir"}


def build_fault(error: Exception) -> HostFault:
    """Return why a provider cannot be built on this host."""
    reason = type(error).__name__
    if isinstance(error, ImportError | OSError):
        reason += f": {why(error)}"
    message = f"it cannot be built on this host ({reason})"
    variables = [name for name in os.environ if name.lower() in _SETTINGS and os.environ[name]]
    if variables:
        message += f"; set here: {', '.join(sorted(variables))}"
    return HostFault(message)


def why(error: Exception) -> str:
    """Return the reason of an error of the system, of TLS or of an import."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not certificates").lower().replace("_", " ")
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error)[:200] or type(error).__name__
