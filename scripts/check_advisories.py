"""Compares constraints.txt with the known vulnerabilities of its packages, as the OSV database has them (https://osv.dev).

    python -m scripts.check_advisories

Status 1 where a version has one. Where the database cannot be reached, as in a closed network, this is told in one line
and nothing fails: a check that cannot be made is no fault of the code. The address is OSV_URL, where that is set.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
DATABASE = "https://api.osv.dev/v1/querybatch"
TIMEOUT = 10.0
"""Seconds."""

Ask = Callable[[Mapping[str, Any]], Any]
"""The body of a query → that of its answer; raises httpx.HTTPError or ValueError."""


def read_versions(text: str) -> list[tuple[str, str]]:
    """(package, version) of each line `name==version`."""
    return re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE)


def find_advisories(versions: Sequence[tuple[str, str]], ask: Ask) -> list[str]:
    """A sentence for each version that has an advisory. Raises ValueError for an answer that is none."""
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in versions]
    answer = ask({"queries": queries})
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != len(versions):
        raise ValueError("its answer has not one result for each package")
    return [
        f"{name} {version}: {', '.join(sorted(each['id'] for each in result['vulns']))}"
        for (name, version), result in zip(versions, results, strict=True)
        if result.get("vulns")
    ]


def ask_database(body: Mapping[str, Any]) -> Any:
    """The answer of the database."""
    answer = httpx.post(os.environ.get("OSV_URL", DATABASE), json=body, timeout=TIMEOUT)
    return answer.raise_for_status().json()


def main(text: str, ask: Ask = ask_database) -> int:
    """Print what is known; the exit status."""
    versions = read_versions(text)
    try:
        found = find_advisories(versions, ask)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        print(f"Advisories were not checked: the database cannot be asked ({type(error).__name__}).")
        return 0
    for sentence in found:
        print(sentence)
    print(f"{len(versions)} packages, {len(found)} with an advisory (https://osv.dev).")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main((ROOT / "constraints.txt").read_text(encoding="utf-8")))
