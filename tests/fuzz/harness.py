"""Fuzz one target with coverage feedback: ``python tests/fuzz/harness.py TARGET SECONDS FOLDER``.

FOLDER keeps what the fuzzer found worth keeping (its corpus), and whatever broke the target. Prints ``Done N runs``; ends
with 0 if nothing broke. ``planted`` is a target with a bug in it, to see that the fuzzer can find one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parents[1]
sys.path[0:1] = [str(TESTS), str(TESTS.parent / "src")]

with atheris.instrument_imports(include=["kakoi"]):
    from fuzz import targets

MOST_BYTES = 70_000


@atheris.instrument_func  # type: ignore[untyped-decorator]
def _planted(data: bytes) -> None:
    """Broken for one in a few billion inputs; coverage leads there."""
    if data[:1] == b"K" and data[1:2] == b"a" and data[2:3] == b"k" and data[3:4] == b"o":
        _ = data[100_000]


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz until the time is over or something broke."""
    planted = targets.Target(name="planted", run=_planted, seeds=lambda: [b"seed"])
    target = planted if name == "planted" else targets.TARGETS[name]
    corpus = Path(folder) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(target.seeds()):
        (corpus / f"seed-{i}").write_bytes(seed)

    def once(data: bytes) -> None:
        targets.check(target, data)

    options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", "-print_final_stats=1", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
