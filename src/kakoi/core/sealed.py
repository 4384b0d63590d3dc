"""Types that only the code which earned them can make.

A class with the metaclass ``Sealed`` refuses to be called (``TypeError``), also by ``dataclasses.replace``. The
module that proved the values uses ``cls._seal(...)``. This is a guard rail for honest code, not a wall.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class Sealed(type):
    """Metaclass without a public constructor."""

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: an instance stands for a check that was made."""
        raise TypeError(f"{cls.__name__} is made by the code that verified it, not by its callers")

    def _seal(cls: type[T], **fields: Any) -> T:
        """The real constructor, for the one module that verifies."""
        made: T = type.__call__(cls, **fields)
        return made
