"""Write docs/errors.md: every error code that the source can raise. A test compares the file with this output."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.error_codes import errors_page  # noqa: E402 - the path is set above

if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(errors_page(), encoding="utf-8")
