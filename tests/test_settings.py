"""Settings that stand in files, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.settings import WrongSetting, find_misspelt, read_settings

URI = "mongodb://clinic:hunter2@db1/fhir"


def test_the_stores_uri_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FHIR_STORE", raising=False)
    monkeypatch.setenv("FHIR_STORE_FILE", str(tmp_path / "uri"))
    with pytest.raises(WrongSetting, match=r"`FHIR_STORE_FILE` names a file that cannot be read: .*uri"):
        read_settings()
    (tmp_path / "uri").write_text(f"{URI}\n", encoding="utf-8")
    assert read_settings().store == URI
    assert read_settings(store="memory://").store == "memory://", "an option of a command wins"
    assert find_misspelt(["FHIR_STORE_FILE"]) == []
    monkeypatch.setenv("FHIR_STORE", "sqlite:///other.db")
    assert read_settings().store == "sqlite:///other.db"
