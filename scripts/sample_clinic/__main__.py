"""Writes the sample clinic: `python -m scripts.sample_clinic [FOLDER]` (default `examples`)."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from scripts.sample_clinic import billing, care, charges, people, practice, visits
from scripts.sample_clinic.build import transaction

WIDTH = 118
# The number at the front is the load order: each bundle refers only to itself and to earlier ones.
BUNDLES = {
    "1-practice.json": (practice,),
    "2-people.json": (people,),
    "3-care.json": (visits, care),
    "4-billing.json": (billing,),
    "5-charges.json": (charges,),
}


def text(value: Any, indent: int = 0) -> str:
    """JSON with what fits on a line on one line, and decimals as they are."""
    if isinstance(value, Decimal):
        return str(value)
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = "  " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {text(item, indent + 1)}" for key, item in value.items()]
    else:
        parts = [text(item, indent + 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    line = ", ".join(parts)
    if "\n" not in line and len(line) + 2 * indent < WIDTH and indent > 3:
        return f"{opening}{line}{closing}"
    joined = f",\n{pad}".join(parts)
    return f"{opening}\n{pad}{joined}\n{'  ' * indent}{closing}"


def main() -> None:
    """Write every bundle into the folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "examples")
    for name, modules in BUNDLES.items():
        bundle = transaction([item for module in modules for item in module.resources()])
        (folder / name).write_text(text(bundle) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
