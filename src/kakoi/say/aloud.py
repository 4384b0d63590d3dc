"""An id as words that two people can compare by telephone: the first 128 of its 256 bits.

English: proquints (D. Wilkerson, arXiv:0901.4016), five letters for 16 bits. Japanese: one of 32 kana for 5 bits, none of
them voiced, small or easily taken for another. Finding a second object with the same words costs about as much as breaking
AES-128.
"""

from __future__ import annotations

from typing import Final

from kakoi.core.ids import parse_id
from kakoi.say.catalogue import Language

BITS: Final = 128
_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"
_KANA: Final = "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマラ"


def words(identity: str, language: Language = "en") -> tuple[str, ...]:
    """Eight words (English) or seven groups of at most four kana (Japanese). Raises Malformed for what is no id."""
    number = int(parse_id(identity)[: BITS // 4], 16)
    return (
        _kana(number)
        if language == "ja"
        else tuple(_proquint(number >> shift & 0xFFFF) for shift in range(112, -1, -16))
    )


def _proquint(value: int) -> str:
    return (
        _CONSONANTS[value >> 12 & 15]
        + _VOWELS[value >> 10 & 3]
        + _CONSONANTS[value >> 6 & 15]
        + _VOWELS[value >> 4 & 3]
        + _CONSONANTS[value & 15]
    )


def _kana(number: int) -> tuple[str, ...]:
    digits = "".join(_KANA[number << 2 >> shift & 31] for shift in range(125, -1, -5))
    return tuple(digits[i : i + 4] for i in range(0, len(digits), 4))


def groups(identity: str) -> str:
    """The first 16 hex digits in groups of four."""
    return " ".join(identity[i : i + 4] for i in range(0, 16, 4))
