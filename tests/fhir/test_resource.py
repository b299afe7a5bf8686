"""What is stored of a client's text: its members as written, `id` and `meta` set (https://hl7.org/fhir/R4/json.html)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.resource import parse, split_at_version, split_members, write_version_members

VERSION = write_version_members(3, "2026-11-27T08:00:00.000Z")
SET_BY_SERVER = ("versionId", "lastUpdated")

TEXTS = (
    b'{"resourceType":"Patient"}',
    b'{"resourceType":"Patient","id":"a"}',
    b'{"resourceType":"Patient","id":"a","meta":{"tag":[{"code":"x"}]},"active":true}',
    b'{"resourceType":"Patient","meta":{"tag":[{"code":"x"}]},"id":"a","active":true}',
    b'{"active" : true , "resourceType" : "Patient", "id" : "a"}',
    b'\n { "resourceType" : "Patient" ,\n "id" : "a" ,\n "meta" : { "profile" : [ "urn:x" ] } ,\n "active" : 1 }\n',
    b'{\n  "resourceType": "Patient",\n  "id": "a",\n  "active": true,\n  "meta": {\n    "source": "urn:x"\n  }\n}\n',
    b'{"resourceType":"Patient","id":"a","active":true,"meta":{}}',
    b'{"resourceType":"Patient","id":"a","meta":{ },"active":true}',
    b'{"resourceType":"Patient","id":"a","active":true,"meta":{"versionId":"7","source":"urn:x"}}',
    b'{"resourceType":"Patient","id":"a","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"active":true}',
    b'{"resourceType":"Patient","active":true,"meta":{"source":"urn:x"},"gender":"male"}',
    b'{"resourceType":"Patient","id":"a","contained":[{"resourceType":"Patient","id":"b","meta":{"source":"urn:y"}}]}',
    b'{"resourceType":"Patient","meta":{"source":"urn:x"},"contained":[{"resourceType":"Patient","meta":{"source":"u"}}]}',
    b'{"resourceType":"Patient","contained":[{"resourceType":"Patient","meta":{"source":"u"}}],"meta":{"source":"urn:x"}}',
    b'{"resourceType":"Basic","id":"a","meta":{"tag":[{"display":"}{\\"x"}]},"code":{"text":"y"}}',
    b'{"resourceType":"Basic","id":"a","meta":{"tag":[{"display":"}],{"}]},"code":{"text":"y"}}',
    b'{"resourceType":"Basic","id":"a","code":{"text":"y"},"meta":{"tag":[{"display":", \\"meta\\": {}}"}]}}',
    b'{"resourceType":"Basic","code":{"text":"meta"},"\\u006deta":{"source":"urn:x"},"language":"meta"}',
    b'{"resourceType":"Basic","\\u0069d":"a","code":{"text":"y"}}',
    b'{"resourceType":"Basic","id":"\\u0061","code":{"text":"y"}}',
    b'{"resourceType":"Basic","meta":{"extension":[{"url":"u","extension":[{"url":"v","valueCode":"w"}]}]},"language":"en"}',
    b'{"resourceType":"Basic","code":{"text":"y","meta":{"source":"urn:x"}}}',
)


def check(raw: bytes) -> None:
    text = parse(raw)
    head, tail = split_at_version(text, text.tree["resourceType"], "new")
    stored = head + VERSION + tail
    meta = {key: value for key, value in text.tree.get("meta", {}).items() if key not in SET_BY_SERVER}
    expected = {"versionId": "3", "lastUpdated": "2026-11-27T08:00:00.000Z", **meta}
    assert parse(stored).tree == {**text.tree, "id": "new", "meta": expected}
    assert list(split_members(stored))[:3] == ["resourceType", "id", "meta"]
    before, after = split_members(raw), split_members(stored)
    rest = [key for key in before if key not in ("resourceType", "id", "meta")]
    assert list(after)[3:] == rest
    assert {key: bytes(after[key]) for key in rest} == {key: bytes(before[key]) for key in rest}


@pytest.mark.parametrize("raw", TEXTS)
def test_members_stay_as_written(raw: bytes) -> None:
    check(raw)


VALUES = st.sampled_from(
    (
        '"meta"',
        '{"source":"urn:x"}',
        '{"meta":{"source":"u"}}',
        '[{"meta":{}}]',
        "1.10",
        '"},{\\"meta\\":{"',
        '"\\u007d"',
    )
)
META = st.sampled_from(
    ("{}", '{"source":"urn:x"}', '{ "tag" : [ {"code":"}"} ] }', '{"versionId":"9","source":"\\u0075"}')
)


@given(
    st.permutations(["resourceType", "id", "meta", "a", "b"]),
    st.sets(st.sampled_from(["id", "meta"])),
    VALUES,
    META,
    st.data(),
)
def test_members_in_any_order(order: list[str], without: set[str], value: str, meta: str, data: st.DataObject) -> None:
    values = {"resourceType": '"Basic"', "id": '"x"', "meta": meta, "a": value, "b": data.draw(VALUES)}
    blank = data.draw(st.sampled_from(["", " ", "\n  "]))
    members = [f'{blank}"{key}"{blank}:{blank}{values[key]}{blank}' for key in order if key not in without]
    check(f"{{{','.join(members)}}}{blank}".encode())
