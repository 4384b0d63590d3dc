"""Arguments that are not part of the key under which ``lru_cache`` keeps a result."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Unkeyed(Generic[T]):
    """Holds a value and equals every other ``Unkeyed``.

    For results that are pure functions of the other arguments, and need this one only to be computed the first time:
    the time at which a signature is verified, say. Whoever uses a kept result checks that it still holds.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unkeyed)

    def __hash__(self) -> int:
        return 0
