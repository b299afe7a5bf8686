"""The folder ../shared beside the checkout: official definitions and sample data, which is not everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

REQUIRED = os.environ.get("FHIR_TEST_SHARED") == "required"
"""Whether a test that lacks something of the folder fails instead of being skipped."""


PARTS = {
    "data/hl7v2/cdc": 208,
    "data/hl7v2/ms": 166,
    "data/r4-examples": 522,
    "data/synthea": 34,
    "data/x12": 18,
    "definitions": 3,
    "definitions/v2-to-fhir": 10,
}
"""How many files and folders each folder holds at least that a test reads."""


def shared_path(name: str = "") -> Path:
    """A file, or a folder with something in it, of ../shared; without it a test is skipped, or fails when required."""
    path = SHARED / name
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        return path
    missing = f"`../shared/{name}` is not here"
    if REQUIRED:
        pytest.fail(f"{missing}, and FHIR_TEST_SHARED=required asks for it", pytrace=False)
    pytest.skip(missing)
