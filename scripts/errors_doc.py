"""Write docs/errors.md: every error code that the source can raise. A test compares the file with this output.

Prints the codes that have no Japanese yet in src/kakoi/cli/messages/errors.ja.toml.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.error_codes import Scan, errors_page  # noqa: E402 - the path is set above


def _without_japanese() -> list[str]:
    known = tomllib.loads((ROOT / "src/kakoi/cli/messages/errors.ja.toml").read_text("utf-8"))
    missing = []
    for code in Scan().codes:
        place: object = known
        for part in code.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            missing.append(code)
    return sorted(missing)


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(errors_page(), encoding="utf-8")
    for missing_code in _without_japanese():
        print(f"no Japanese: {missing_code}")
