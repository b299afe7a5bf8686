"""The table `x12` of a partner's file: what is wrong in one, what the mappers get of it, and who takes which payer."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from fhir_server.app import Knowledge
from fhir_server.fhir.outcome import Unprocessable
from fhir_server.partners import Partner, WrongPartner, read_partner
from fhir_server.workers.x12_partners import allot_number, choose_partner, to_mapper_partner
from mappers.x12.segment import Delimiters
from mappers.x12.tables.claim import TABLE_837P
from mappers.x12.writer import ControlNumbers, write_interchange
from tests.conftest import serving

SAMPLE = Path(__file__).resolve().parents[2] / "profiles" / "partners" / "clearinghouse.toml.sample"
LINES = [line[2:] for line in SAMPLE.read_text(encoding="utf-8").splitlines()[2:]]
TEXT = "\n".join(LINES)


def read(tmp_path: Path, text: str) -> Partner:
    path = tmp_path / "partner.toml"
    path.write_text(text, encoding="utf-8")
    return read_partner(path)


def find_line(text: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if line.startswith(text))


WRONG = {
    "an envelope that is none": ('"clearinghouse"\nusage', '"pigeon"\nusage', "envelope =", "Input should be 'direct'"),
    "a payer that is not named": (
        '"clearinghouse"\nusage',
        '"direct"\nusage',
        "[x12]",
        "needs the payer's id in `payers`",
    ),
    "a qualifier of another standard": ('qualifier = "30"', 'qualifier = "99"', "qualifier", "Input should be '01'"),
    "an id that is too long": ('"LAKESIDE01"', '"LAKESIDE01234567"', 'id = "L', "at most 15 characters"),
    "an id in small letters": ('"LAKESIDE01"', '"lakeside"', 'id = "L', "should match pattern"),
    "nobody to call": ('phone = "555-555-0142"\n', "", "[x12.ours]", "Give `phone`, `email` or both"),
    "a short number": ('"555-555-0142"', '"555-0142"', "[x12.ours]", "needs 10 to 20 digits"),
    "a usage that is none": ('usage = "T"', 'usage = "X"', "usage", "Input should be 'T' or 'P'"),
    "an answer that is none": ('["TA1", "999"]', '["997"]', "answers", "Input should be 'TA1' or '999'"),
    "a key misspelt": ('phone = "', 'phon = "', "phone", "did you mean `phone`?"),
    "a format that is not spoken": ('formats = ["x12"]', 'formats = ["hl7v2"]', "name", "`formats` has no `x12`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_told_with_line_and_reason(tmp_path: Path, name: str) -> None:
    before, after, line, says = WRONG[name]
    assert before in TEXT
    with pytest.raises(WrongPartner) as error:
        read(tmp_path, TEXT.replace(before, after))
    first = str(error.value).splitlines()[0]
    assert f", line {find_line(line)}: " in first and says in first, first


@pytest.mark.parametrize("separators", ['element = "*"\ncomponent = "*"', 'terminator = "A"', 'component = "."'])
def test_separators_differ_and_are_no_letters_or_points(tmp_path: Path, separators: str) -> None:
    with pytest.raises(WrongPartner, match=r"x12\.separators"):
        read(tmp_path, f"{TEXT}\n[x12.separators]\n{separators}\n")


def test_the_sample_makes_an_envelope_of_106_characters(tmp_path: Path) -> None:
    """ISA is fixed: X12.5, 106 characters with its terminator; ids are padded to 15."""
    partner = to_mapper_partner(read(tmp_path, TEXT))
    text = write_interchange(partner.envelope, ControlNumbers(7, 8, datetime(2026, 3, 1, 9, 5)), TABLE_837P, [])
    assert text[:106] == (
        "ISA*00*          *00*          *ZZ*LAKESIDE01     *30*990000001      *260301*0905*^*00501*000000007*0*T*:~"
    )
    assert (partner.submitter.id, partner.receiver.id) == ("LAKESIDE01", "990000001")
    assert "J3490" in partner.described


def test_what_a_file_says_reaches_the_mappers(tmp_path: Path) -> None:
    tables = '[x12.filing_codes]\n60054 = "CI"\n[x12.assignments]\n60054 = "C"\n[x12.separators]\nelement = "|"\n'
    top = 'usage = "P"\nrequests_ta1 = true\ndescribed_procedures = ["X0001"]\n'
    text = TEXT.replace('usage = "T"\n', top).replace('id = "990000001"', 'id = "990000001"\ngroup_id = "CLAIMS"')
    partner = to_mapper_partner(read(tmp_path, f"{text}\n{tables}"))
    envelope = partner.envelope
    assert (envelope.usage, envelope.wants_acknowledgement, envelope.group_receiver) == ("P", True, "CLAIMS")
    assert envelope.delimiters == Delimiters(element="|")
    assert (partner.filing_codes, partner.assignments) == ({"60054": "CI"}, {"60054": "C"})
    assert partner.described == {"X0001"}


def test_a_payer_goes_to_the_partner_that_names_it_else_to_the_one_that_takes_all(tmp_path: Path) -> None:
    everything = read(tmp_path, TEXT)
    named = read(tmp_path, TEXT.replace('usage = "T"', 'payers = ["60054"]').replace('"clearinghouse"', '"direct"'))
    partners = {"clearinghouse": everything, "payer": named}
    assert choose_partner(partners, "60054") is named and choose_partner(partners, "1") is everything
    with pytest.raises(Unprocessable, match="No partner's table `x12` takes the payer `1`"):
        choose_partner({"payer": named}, "1")
    with pytest.raises(Unprocessable, match="Several partners take the payer `60054`"):
        choose_partner({"payer": named, "other": named}, "60054")


@pytest.mark.anyio
async def test_control_numbers_come_once_and_begin_anew_behind_the_largest(known: Knowledge) -> None:
    async with serving(known, store="memory://") as client:
        context = client.server.context
        numbers = await asyncio.gather(*(allot_number(context, "payer") for _ in range(20)))
        assert sorted(numbers) == list(range(1, 21))
        await context.unrestricted.put_value_if("x12-number/other", b"999999999", None)
        assert await allot_number(context, "other") == 1
