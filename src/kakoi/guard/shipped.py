"""The rules at work: those that come with Kakoi, and a party's own beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kakoi.core.errors import Malformed
from kakoi.guard.happening import Finding
from kakoi.guard.stream import Stream

if TYPE_CHECKING:
    from kakoi.guard.detect import Detector
    from kakoi.guard.sigma.rules import RuleSet

logger = logging.getLogger("kakoi.guard")
LARGEST: Final = 256 * 1024


def rules_with(own: Path | None) -> RuleSet:
    """Shipped rules and those of a directory. Raises Malformed for a rule that the evaluator does not know."""
    from kakoi.guard.sigma.rules import read_rules, require_known, shipped_texts

    texts = list(shipped_texts().values())
    if own is not None:
        files = sorted(own.glob("*.yml"))
        if not files:
            raise Malformed("sigma.none", "expected rules (*.yml) in the directory of one's own rules, found none")
        for path in files:
            if path.stat().st_size > LARGEST:
                raise Malformed("sigma.size", f"expected at most {LARGEST} bytes of rules in one file, got more")
            texts.append(path.read_text("utf-8"))
    return require_known(read_rules(texts))


def detector_of(
    stream: Stream, *, own: Path | None = None, tell: Callable[[Finding], object] = lambda _: None
) -> Detector | None:
    """What judges a stream; None where the library that reads rules (the extra ``guard``) is not installed."""
    try:
        from kakoi.guard.detect import Detector
    except ImportError:
        logger.warning("no detection: the extra 'guard' is not installed; events are written all the same")
        return None
    return Detector(stream, rules_with(own), tell=tell)
