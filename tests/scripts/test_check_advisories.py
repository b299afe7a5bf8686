"""The check of dependencies: what an advisory does, and what a database that is not there does not do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from scripts.check_advisories import ROOT, main, read_versions

TEXT = "# run\nanyio==4.16.0\npydantic_core==2.50.4\n"


def answer_with(*results: dict[str, Any]) -> Any:
    def ask(body: Mapping[str, Any]) -> Any:
        assert body["queries"][0] == {"package": {"name": "anyio", "ecosystem": "PyPI"}, "version": "4.16.0"}
        return {"results": list(results)}

    return ask


def test_a_version_with_an_advisory_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The shape of https://google.github.io/osv.dev/post-v1-querybatch/."""
    vulnerable = {"vulns": [{"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z"}, {"id": "GHSA-1"}]}
    assert main(TEXT, answer_with({}, vulnerable)) == 1
    assert "pydantic_core 2.50.4: GHSA-1, PYSEC-1\n" in capsys.readouterr().out
    assert main(TEXT, answer_with({}, {})) == 0
    assert "2 packages, 0 with an advisory" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [None, [], {}, {"results": [{}]}, {"results": 1}, {"results": [{"vulns": 1}, {}]}])
def test_an_answer_that_is_none_is_told(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TEXT, lambda _: answer) == 0
    assert "were not checked" in capsys.readouterr().out


def test_a_closed_network_fails_nothing_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Mapping[str, Any]) -> Any:
        raise httpx.ConnectError("no route")

    assert main(TEXT, fail) == 0
    assert capsys.readouterr().out == "Advisories were not checked: the database cannot be asked (ConnectError).\n"


def test_every_locked_package_is_asked_about() -> None:
    versions = read_versions((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    names = {name.lower() for name, _ in versions}
    assert {"fastapi", "jinja2", "joserfc", "cryptography"} <= names and len(versions) > 60
