"""Roles that ship and those of a site, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from fhir_server.app import Knowledge, find_roles
from fhir_server.operations import OPERATIONS
from fhir_server.security.roles import read_roles
from fhir_server.security.scopes import ANY_TYPE, parse_scope
from fhir_server.security.static_tokens import StaticToken, create_token
from fhir_server.security.users import User, check_organization
from fhir_server.settings import Settings
from tests.conftest import serving

pytestmark = pytest.mark.anyio

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


async def test_what_the_holder_is_stands_in_the_scopes(known: Knowledge, store_uri: str, tmp_path: Path) -> None:
    """Two holders of one role and of two organizations: each sees the patients of its own, and who has none none."""
    role = ["user/Patient.rs?organization={organization}", "user/Organization.rs"]
    (tmp_path / "roles.json").write_text(orjson.dumps({"branch": role}).decode())
    async with serving(known, store=store_uri, authentication="on", audit_folder="", profiles=str(tmp_path)) as client:
        context = client.server.context

        async def act_as(name: str, **what: str) -> dict[str, str]:
            end = context.clock() + 10**12
            made = StaticToken(name, **{"scopes": "", "expires": end, **what})  # type: ignore[arg-type]
            return {"authorization": f"Bearer {await create_token(context.unrestricted, made, context.roles)}"}

        writer = await act_as("writer", scopes="system/*.cruds")
        for id in ("north", "south"):
            organization = {"resourceType": "Organization", "id": id, "name": id}
            assert (await client.put(f"Organization/{id}", json=organization, headers=writer)).is_success
            patient = {"resourceType": "Patient", "id": id, "managingOrganization": {"reference": f"Organization/{id}"}}
            assert (await client.put(f"Patient/{id}", json=patient, headers=writer)).is_success
        for name, seen in (("north", ["north"]), ("south", ["south"]), ("", [])):
            reference = f"Organization/{name}" if name else ""
            holder = await act_as(f"of {name}", role="branch", organization=reference)
            answer = await client.get("Patient", headers=holder)
            found = [entry["resource"]["id"] for entry in answer.json().get("entry", ())]
            assert (found, answer.status_code) == (seen, 200 if seen else 403)
            for id in ("north", "south"):
                answer = await client.get(f"Patient/{id}", headers=holder)
                assert answer.is_success == (id in seen)


def test_a_person_has_what_it_is_filled_in() -> None:
    roles = {"r": ("user/Task.rs?owner={fhirUser}", "user/Patient.rs?_id={patient}", "user/Location.rs")}
    quill = User("quill", "r", "", 1, "Practitioner/quill")
    assert list(map(str, quill.list_scopes(roles))) == ["user/Task.rs?owner=Practitioner/quill", "user/Location.rs"]
    ada = User("ada", "r", "", 1, "Patient/ada")
    assert list(map(str, ada.list_scopes(roles)))[1] == "user/Patient.rs?_id=ada"


def test_what_a_person_opens_is_filled_in_and_is_no_scope() -> None:
    word = "break-glass:user/Patient.rs?organization={organization}"
    north, nowhere = (User("quill", "r", "", 1, organization=each) for each in ("Organization/north", ""))
    assert list(map(str, north.list_opened({"r": (word,)}))) == ["user/Patient.rs?organization=Organization/north"]
    assert nowhere.list_opened({"r": (word,)}) == () == north.list_scopes({"r": (word,)})


@pytest.mark.parametrize("reference", ["north", "Organization/", "Organization/a&b=c", "Patient/ada"])
def test_what_is_no_organization_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="is no organization"):
        check_organization(reference)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": ["user/Task.rs?owner={user}"]}', "`a`.*`{user}`"),
        ('{"a": ["break-glass:user/Task.rs?owner={user}"]}', "`a`.*`{user}`"),
        ('{"a": ["break-glass:"]}', "`a`"),
        ("{", "JSON"),
        ("[]", "object"),
        ('{"a": "user/Patient.r"}', "`a`"),
        ('{"a": ["Patient"]}', "`a`.*`Patient`"),
    ],
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
