"""
Load a worker's settings: from a roles file, else from the keys in the environment.

The roles file has sections whose content `tasks.config` does not know, such as `workflows`. This
module hands their readers to it, so that `tasks.config` imports neither workflows nor any later
section's package. `breakwater.config.role_names` is the producers' reader; it needs no keys.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from breakwater.config import roles_path
from tasks.config.settings import Settings

# YAML and pydantic cost 60 ms to import: the functions
# that need them import them, hence the exceptions (PLC0415) below.


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """
    Read `ROLES_FILE`, else `./roles.yaml`, else detect the providers from the environment.

    Raises:
        ConfigError: Listing every fault, by line.
    """
    path = roles_path(environ)
    if path is None:
        from tasks.config import detection  # noqa: PLC0415

        return detection.detect(environ)
    from breakwater.config.document import read_bytes  # noqa: PLC0415

    return check_roles_file(read_bytes(path), path, environ)


def check_roles_file(content: bytes, path: Path, environ: Mapping[str, str]) -> Settings:
    """
    Check the content of a roles file, its sections included.

    Args:
        path: The file's name in messages.

    Raises:
        ConfigError: Listing every fault, by line.
    """
    from breakwater.workflows import section  # noqa: PLC0415
    from tasks.config import roles_file  # noqa: PLC0415

    return roles_file.check(content, path, environ, {section.SECTION: section.definitions})
