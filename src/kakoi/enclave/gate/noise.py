"""Exact noise: discrete Laplace and exponential samplers in integers, driven by a key.

Samplers that compute with floats leave holes in what they can draw, and the holes tell the exact answer (Mironov, On significance of the
least significant bits for differential privacy, 2012). Here nothing but whole numbers is computed, so that every draw has exactly the
probability it should have: Canonne, Kamath, Steinke, The discrete Gaussian for differential privacy (2020), algorithms 1 and 2.

The coins come from SHAKE256 over a key instead of the machine's randomness: the same question about the same data gets the same noise, so that
asking again and averaging removes none of it (docs/adr/0102). Who does not know the key cannot tell the coins from fair ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from hashlib import shake_256
from typing import Final

from kakoi.core.encoding import framed

_BLOCK: Final = 128


class Coins:
    """Fair bits for one draw. The same key and place give the same bits; another place gives independent ones."""

    __slots__ = ("_bits", "_block", "_left", "_seed")

    def __init__(self, key: bytes, *place: int) -> None:
        self._seed = framed(b"kakoi/coins/v1", key, *(number.to_bytes(8, "big") for number in place))
        self._block = self._bits = self._left = 0

    def _take(self, count: int) -> int:
        """The next ``count`` bits as a whole number."""
        while self._left < count:
            block = shake_256(self._seed + self._block.to_bytes(8, "big")).digest(_BLOCK)
            self._bits = self._bits << 8 * _BLOCK | int.from_bytes(block, "big")
            self._block, self._left = self._block + 1, self._left + 8 * _BLOCK
        self._left -= count
        taken = self._bits >> self._left
        self._bits &= (1 << self._left) - 1
        return taken

    def below(self, limit: int) -> int:
        """A uniform whole number from 0 to ``limit`` - 1."""
        width = (limit - 1).bit_length()
        while (found := self._take(width)) >= limit:
            pass
        return found

    def happens(self, chance: Fraction) -> bool:
        """Yes with this probability."""
        return self.below(chance.denominator) < chance.numerator

    def decays(self, by: Fraction) -> bool:
        """Yes with probability exp(-``by``); ``by`` is not negative (algorithm 1)."""
        for _ in range(by.numerator // by.denominator):
            if not self._decays_little(Fraction(1)):
                return False
        return self._decays_little(by % 1)

    def _decays_little(self, by: Fraction) -> bool:
        """The same for ``by`` up to 1: a product of ever smaller chances stops at an even place that often."""
        turn = 1
        while self.below(by.denominator * turn) < by.numerator:
            turn += 1
        return turn % 2 == 1


def laplace(coins: Coins, scale: Fraction) -> int:
    """A whole number x with probability proportional to exp(-|x| / ``scale``); ``scale`` is positive (algorithm 2)."""
    top, bottom = scale.numerator, scale.denominator
    while True:
        start = coins.below(top)
        if not coins.decays(Fraction(start, top)):
            continue
        while coins.decays(Fraction(1)):
            start += top
        size, negative = start // bottom, coins.below(2)
        if size or not negative:
            return -size if negative else size


def exponential(coins: Coins, losses: Sequence[int], unit: Fraction) -> int:
    """A place i with probability proportional to exp(-``unit`` · ``losses[i]``): the exponential mechanism (McSherry, Talwar 2007).

    Places are proposed uniformly and kept by their weight relative to the best one, so nothing has to be summed up or rounded.
    """
    least = min(losses)
    while True:
        place = coins.below(len(losses))
        if coins.decays(unit * (losses[place] - least)):
            return place


_LN: Final = {20: Fraction(29957322736, 10**10), 40: Fraction(36888794542, 10**10)}
"""Natural logarithms, rounded up."""


def half_width(scale: Fraction, *, one_in: int) -> int:
    """What a draw of ``laplace`` exceeds, up or down, at most once in ``one_in`` times (20 or 40): P(|x| > m) <= exp(-m / scale)."""
    return -int(-(scale * _LN[one_in]) // 1)


def rank_width(unit: Fraction, places: int) -> int:
    """By how much more than the best place's the loss of a drawn place is at most, 19 times out of 20 (utility theorem).

    ``places``: how many there are; ln(20 · places) is rounded up through the bits of the number.
    """
    bound = _LN[20] + Fraction(places.bit_length() * 6931471806, 10**10)
    return -int(-(bound / unit) // 1)
