"""CI's second run of a few failed tests: what is run, what is not, and what it ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run_failures_again import MOST, choose_tests

ROOT = Path(__file__).resolve().parents[2]

PASSES_THE_SECOND_TIME = """
from pathlib import Path

def test_one():
    second = Path("seen").exists()
    Path("seen").touch()
    assert second
"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.external
@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        (PASSES_THE_SECOND_TIME, 0, "They passed alone"),
        ("def test_one():\n    assert False\n", 1, "1 failed"),
        ("def test_one():\n    pass\n", 1, "none are noted"),
    ],
)
def test_what_failed_is_run_once_more_and_named(tmp_path: Path, text: str, status: int, says: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_two_runs.py").write_text(text)
    run(tmp_path, "pytest")
    again = run(tmp_path, "scripts.run_failures_again")
    assert again.returncode == status, again.stdout + again.stderr
    assert says in again.stdout


def test_many_failures_are_no_accident() -> None:
    few = [f"test_a.py::test_{number}" for number in range(MOST)]
    assert choose_tests(json.dumps(dict.fromkeys(few, True))) == few
    assert choose_tests(json.dumps(dict.fromkeys([*few, "test_b.py"], True))) == []
