"""`make serve`, with a command that only writes down how it was called, and who calls which target."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

COMMAND = """#!/bin/sh
echo "$@" >> calls
case "$1" in load) test ! -e refuse && touch fhir.db;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    command = tmp_path / ".venv" / "bin" / "fhir-server"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    command.chmod(0o755)
    (tmp_path / ".venv" / ".runtime").touch()
    return tmp_path


CALLERS = (".ci/run", ".github/workflows/tests.yml", ".pre-commit-config.yaml", "CONTRIBUTING.md")


@pytest.mark.parametrize("caller", CALLERS)
def test_whoever_calls_make_names_targets_that_exist(caller: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / caller).read_text(encoding="utf-8")))
    assert named and named <= targets


def served(checkout: Path, *options: str, target: str = "serve") -> list[str]:
    """The commands that `make serve` ran."""
    calls = checkout / "calls"
    calls.unlink(missing_ok=True)
    subprocess.run(("make", "--silent", target, *options), cwd=checkout, check=False, capture_output=True)
    return [call.partition(" ")[0] for call in calls.read_text().splitlines()]


def test_samples_are_loaded_once_into_a_store(checkout: Path) -> None:
    assert served(checkout) == ["load", "serve"]
    assert served(checkout) == ["serve"]
    (checkout / "fhir.db").unlink()
    assert served(checkout) == ["load", "serve"]
    assert served(checkout, "STORE=mongodb://127.0.0.1/clinic?a=b&c=d") == ["load", "serve"]


def test_a_server_with_tokens_begins_with_one(checkout: Path) -> None:
    assert served(checkout, target="serve-secure") == ["load", "token", "serve"]
    assert served(checkout, target="serve-secure") == ["token", "serve"]
    created = (checkout / "calls").read_text().splitlines()[0]
    assert re.fullmatch(
        r"token create --name serve-secure [0-9]+ --role administrator --expires 12h --store \S+", created
    )


def test_samples_that_were_not_loaded_whole_are_loaded_again(checkout: Path) -> None:
    (checkout / "fhir.db").touch()
    (checkout / "refuse").touch()
    assert served(checkout) == ["load"]
    (checkout / "refuse").unlink()
    assert served(checkout) == ["load", "serve"]
