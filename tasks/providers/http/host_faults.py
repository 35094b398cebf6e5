"""Say why a provider cannot be built on this host, in words that show no key and no password."""

import os
import ssl

from breakwater.errors import HostFault

_SETTINGS = {"all_proxy", "http_proxy", "https_proxy", "ssl_cert_file", "ssl_cert_dir"}


def build_fault(error: Exception) -> HostFault:
    """Return why a provider cannot be built on this host."""
    reason = f": {why(error)}" if isinstance(error, ImportError | OSError) else ""
    variables = [name for name in os.environ if name.lower() in _SETTINGS and os.environ[name]]
    hint = f"; set here: {', '.join(sorted(variables))}" if variables else ""
    return HostFault(f"it cannot be built on this host ({type(error).__name__}{reason}){hint}")


def why(error: Exception) -> str:
    """Return the reason of an error of the system, of TLS or of an import."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not certificates").lower().replace("_", " ")
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error)[:200] or type(error).__name__
