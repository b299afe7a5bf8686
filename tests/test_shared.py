"""What is said of ../shared where it is required, as `.ci/run` does, and where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import shared


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SHARED", tmp_path)


@pytest.mark.skipif(not shared.REQUIRED and not shared.SHARED.exists(), reason="`../shared` is not here")
def test_the_folder_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    counts = {part: len(list(shared.shared_path(part).iterdir())) for part in shared.PARTS}
    assert {part: count for part, count in counts.items() if count < shared.PARTS[part]} == {}


def test_what_is_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").touch()
    assert shared.shared_path("data") == tmp_path / "data"
    assert shared.shared_path("data/a.json") == tmp_path / "data" / "a.json"


@pytest.mark.parametrize("name", ["data", "empty"])
def test_what_is_missing_or_empty_skips_a_test(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "REQUIRED", False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(pytest.skip.Exception, match=f"`../shared/{name}` is not here"):
        shared.shared_path(name)


@pytest.mark.parametrize("name", ["data", "empty"])
def test_what_is_missing_or_empty_fails_a_test_where_it_is_required(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "REQUIRED", True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(pytest.fail.Exception, match=f"`../shared/{name}` is not here, and FHIR_TEST_SHARED=required"):
        shared.shared_path(name)
