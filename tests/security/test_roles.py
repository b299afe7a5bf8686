"""Roles that ship and those of a site, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fhir_server.app import find_roles
from fhir_server.operations import OPERATIONS
from fhir_server.security.roles import read_roles
from fhir_server.security.scopes import ANY_TYPE, parse_scope
from fhir_server.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "access.md"


def test_a_front_desk_books_and_sees_no_clinical_resource() -> None:
    scopes = [parse_scope(text) for text in find_roles(Settings())["front-desk"]]
    assert any(scope.covers("Appointment", "c") for scope in scopes)
    for type in ("Observation", "Condition", "MedicationRequest", "DiagnosticReport", "DocumentReference"):
        assert not any(scope.covers(type, "rs") for scope in scopes), type


def test_a_biller_can_call_what_billing_needs() -> None:
    scopes = [parse_scope(text) for text in find_roles(Settings())["biller"]]
    for code in ("assemble", "scrub", "split", "post", "refund", "adjust", "ledger", "ar-aging", "statement"):
        for type, letters in (OPERATIONS[code].needs or {}).items():
            for letter in letters:
                assert any(scope.covers(type, letter) for scope in scopes), (code, type, letter)


def test_a_site_replaces_a_role_and_adds_one(tmp_path: Path) -> None:
    (tmp_path / "roles.json").write_text('{"auditor": ["user/AuditEvent.read"], "scribe": ["user/Composition.write"]}')
    roles = find_roles(Settings(profiles=str(tmp_path)))
    assert roles["auditor"] == ("user/AuditEvent.rs",)
    assert roles["scribe"] == ("user/Composition.cud",)
    assert "biller" in roles


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "JSON"), ("[]", "object"), ('{"a": "user/Patient.r"}', "`a`"), ('{"a": ["Patient"]}', "`a`.*`Patient`")],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "roles.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}|{word}") as told:
        read_roles([file])
    assert re.search(word, str(told.value)) and str(file) in str(told.value)


def test_the_page_has_every_role_and_what_every_operation_needs() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Roles")[2]
    assert set(re.findall(r"^\| `([a-z-]+)` \| ", page, re.M)) == set(find_roles(Settings()))
    rows = {}
    for code, operation in OPERATIONS.items():
        needs = [
            f"`{'{type}' if type == ANY_TYPE else type}.{letters}`" for type, letters in (operation.needs or {}).items()
        ]
        rows[code] = ", ".join(needs) or ("its key" if operation.keyed else "a token")
    assert dict(re.findall(r"^\| `\$([a-z0-9-]+)` \| (.*) \|$", page, re.M)) == rows
