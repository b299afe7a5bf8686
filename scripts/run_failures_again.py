"""Run the tests that failed in the last run once more, by themselves: what CI does before it calls a run failed.

    python -m scripts.run_failures_again

More than MOST failures, or none that pytest noted, end it with 1 without running anything. A test that passes now is
named in the output all the same: it depends on what runs beside it, and is to be mended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
"""Failures in one run that may be an accident of what ran beside them; more are not."""

NOTED = Path(".pytest_cache/v/cache/lastfailed")


def choose_tests(noted: str) -> list[str]:
    """The tests to run again, of pytest's own note of failures (JSON: an object with their ids); none of too many."""
    failed = sorted(json.loads(noted))
    return failed if len(failed) <= MOST else []


def main() -> int:
    """Run them; pytest's exit status, or 1 where there is nothing to run."""
    failed = choose_tests(NOTED.read_text()) if NOTED.exists() else []
    if not failed:
        print(f"No failed tests are run again: none are noted, or more than {MOST}.")
        return 1
    print("Run again by themselves:", *failed, sep="\n  ", flush=True)
    status = subprocess.run([sys.executable, "-m", "pytest", "-ra", "-m", "", "-n", "0", *failed]).returncode
    if status == 0:
        print("They passed alone, and depend on what runs beside them; to be mended:", *failed, sep="\n  ")
    return status


if __name__ == "__main__":
    sys.exit(main())
