"""The errors of `breakwater.errors`, by the name that results have for them."""

from breakwater import errors
from breakwater.errors import *  # noqa: F403

__all__ = [name for name in dir(errors) if name[0].isupper()]
