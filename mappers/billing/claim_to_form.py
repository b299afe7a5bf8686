"""A claim as the texts of a CMS-1500 (02/12): what its 837P says, put into the boxes that say the same.

Both come from the same loops, so that the form and the file cannot differ. Boxes and what belongs in them: the
reference instruction manual of the form (https://www.nucc.org), and for Medicare chapter 26 of CMS Pub. 100-04.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.billing.form_layout import SERVICE_LINES, find_box
from mappers.billing.form_texts import (
    Boxes,
    is_lasting,
    line_to_boxes,
    list_line_remarks,
    write_address,
    write_birth,
    write_date,
    write_money,
    write_name,
    write_phone,
    write_place,
    write_plain,
)
from mappers.x12.claim_to_837p import Claim837, claim_to_loops, sort_insurances
from mappers.x12.fault import fault_to_issue
from mappers.x12.loop import Loop, to_amount
from mappers.x12.parties import choose_address, find_payer, find_provider, find_subscriber
from mappers.x12.partner import ClaimSource, Mapping837, Partner
from mappers.x12.resource import EMPTY, Resource, get_text, get_texts, resolve
from mappers.x12.segment import Segment
from mappers.x12.writer import clean

SIGNED = "SIGNATURE ON FILE"
MEDICARE = ("MA", "MB")
_KINDS = {"MA": "medicare", "MB": "medicare", "MC": "medicaid", "CH": "tricare", "VA": "champva"}
_GROUP_KINDS = frozenset({"12", "13", "14", "15", "BL", "CI", "HM"})
_RELATIONSHIPS = {"18": "self", "01": "spouse", "19": "child"}
_OTHER_DATES = ("439", "454", "304", "453", "455")
_SHOWN_DATES = frozenset({*_OTHER_DATES, "431", "484", "314", "360", "361", "435", "096"})


class Form(NamedTuple):
    """The pages, each with the text of each box (`mappers/billing/form_layout.py`), and what is to be said of them.

    Without pages where the claim cannot be put on paper; the issues say why.
    """

    pages: tuple[Boxes, ...]
    issues: tuple[Issue, ...]


class _Parts(NamedTuple):
    """A claim's loops and the resources behind them; `insured` is 2010BA, or 2330A of who pays before Medicare."""

    loops: Claim837
    source: ClaimSource
    payer: Resource
    provider: Resource
    person: Resource
    subscriber: Resource
    others: Sequence[Loop]

    @property
    def claim(self) -> Loop:
        return self.loops.claim

    @property
    def sbr(self) -> Segment:
        return self.loops.subscriber.segment("SBR")

    @property
    def patient(self) -> Loop:
        return self.loops.patient.loop("2010CA") if self.loops.patient else self.loops.subscriber.loop("2010BA")


def claim_to_form(source: ClaimSource, partner: Partner) -> Form:
    """The form of a claim that `claim_to_loops` takes: six lines a page, each page with its own total."""
    loops, faults = claim_to_loops(source, partner)
    if loops is None:
        return Form((), tuple(fault_to_issue(each) for each in faults))
    parts = _find_parts(loops, source, partner)
    if len(parts.others) > 1:
        text = f"The claim has {len(parts.others)} other payers; a CMS-1500 has room for one. Send it as an 837P."
        return Form((), (Issue("error", "business-rule", text, ("Claim.insurance",)),))
    pages = tuple(_fill_page(parts, number) for number in range(-(-len(loops.claim.loops("2400")) // SERVICE_LINES)))
    issues = (*_find_wide(pages), *(Issue("warning", "informational", *each) for each in _list_remarks(parts)))
    if any(each.severity == "error" for each in issues):
        return Form((), issues)
    return Form(tuple({name: _cut(name, text) for name, text in page.items()} for page in pages), issues)


def _find_parts(loops: Claim837, source: ClaimSource, partner: Partner) -> _Parts:
    mapping = Mapping837(source, partner)
    insurances = sort_insurances(source.claim)
    focal = next((each for each in insurances if each.get("focal") is True), insurances[0] if insurances else EMPTY)
    coverage = resolve(focal.get("coverage"), source.resources, source.claim)
    person = resolve(coverage.get("beneficiary") or source.claim.get("patient"), source.resources, coverage)
    provider = find_provider(mapping, source.claim.get("provider"), organization_first=True).resource
    payer, _ = find_payer(source.resources, coverage)
    subscriber, _ = find_subscriber(mapping, coverage)
    return _Parts(loops, source, payer, provider, person, subscriber, loops.claim.loops("2320"))


def _fill_page(parts: _Parts, number: int) -> Boxes:
    lines = parts.claim.loops("2400")[number * SERVICE_LINES : (number + 1) * SERVICE_LINES]
    boxes: Boxes = {}
    for place, line in enumerate(lines, 1):
        inner = line_to_boxes(line, parts.claim)
        boxes |= {f"line.{place}.{name}": text for name, text in inner.items()}
    total = sum((to_amount(line.segment("SV1").at(2)) for line in lines), Decimal(0))
    paid = _find_paid(parts) if number == 0 else Decimal(0)
    boxes |= {"total": write_money(total), "paid": write_money(paid) if paid else ""}
    for part in (_fill_payer, _fill_patient, _fill_insured, _fill_other, _fill_dates, _fill_referring, _fill_claim):
        boxes |= part(parts)
    boxes |= _fill_provider(parts)
    return {name: text for name, text in boxes.items() if text}


def _find_paid(parts: _Parts) -> Decimal:
    """What the patient and the other payer have paid."""
    paid = to_amount(parts.claim.value("AMT", "F5"))
    return sum((to_amount(each.value("AMT", "D")) for each in parts.others), paid)


def _fill_payer(parts: _Parts) -> Boxes:
    address = choose_address(parts.payer)
    filing = parts.sbr.at(9)
    grouped = filing in _GROUP_KINDS and bool(parts.sbr.at(3))
    kind = _KINDS.get(filing, "group" if grouped else "other")
    street, second = ([*get_texts(address, "line"), "", ""])[:2]
    city = [clean(get_text(address, name), 30) for name in ("city", "state", "postalCode")]
    return {
        "payer.name": parts.loops.subscriber.loop("2010BB").segment("NM1").at(3),
        "payer.street": clean(street, 55),
        "payer.street2": clean(second, 55),
        "payer.city": " ".join(filter(None, city)),
        f"kind.{kind}": "X",
    }


def _fill_patient(parts: _Parts) -> Boxes:
    loop = parts.patient
    relationship = parts.loops.patient.segment("PAT").at(1) if parts.loops.patient else "18"
    return {
        "patient.name": write_name(loop.segment("NM1")),
        **write_birth("patient", loop),
        **write_address("patient", loop),
        **write_phone("patient", parts.person),
        f"relationship.{_RELATIONSHIPS.get(relationship, 'other')}": "" if _is_medicare_first(parts) else "X",
        "patient.signature": SIGNED if parts.claim.segment("CLM").at(9) == "Y" else "",
        "insured.signature": SIGNED if parts.claim.segment("CLM").at(8) == "Y" else "",
    }


def _is_medicare_first(parts: _Parts) -> bool:
    return parts.sbr.at(9) in MEDICARE and parts.sbr.at(1) == "P"


def _fill_insured(parts: _Parts) -> Boxes:
    """1a, 4, 7, 11. Medicare wants nothing of them but its number and NONE where it pays first, else who pays first."""
    loop = parts.loops.subscriber.loop("2010BA")
    boxes = {"insured.id": loop.segment("NM1").at(9)}
    if _is_medicare_first(parts):
        return boxes | {"insured.group": "NONE"}
    if parts.sbr.at(9) in MEDICARE and parts.others:
        other = parts.others[0]
        name = other.loop("2330A")
        policy = other.segment("SBR").at(3) or name.segment("NM1").at(9)
        plan = other.segment("SBR").at(4) or other.loop("2330B").segment("NM1").at(3)
        own: Boxes = {"insured.group": policy, "insured.plan": plan}
        return boxes | own | {"insured.name": write_name(name.segment("NM1")), **write_address("insured", name)}
    return boxes | {
        "insured.name": write_name(loop.segment("NM1")),
        **write_birth("insured", loop),
        **write_address("insured", loop),
        **write_phone("insured", parts.subscriber),
        "insured.group": parts.sbr.at(3),
        "insured.plan": parts.sbr.at(4) or parts.loops.subscriber.loop("2010BB").segment("NM1").at(3),
        f"other.{'yes' if parts.others else 'no'}": "X",
    }


def _fill_other(parts: _Parts) -> Boxes:
    """9 to 9d; of Medicare they are for Medigap alone."""
    if not parts.others or parts.sbr.at(9) in MEDICARE:
        return {}
    other = parts.others[0]
    name, sbr = other.loop("2330A").segment("NM1"), other.segment("SBR")
    return {
        "other.name": write_name(name),
        "other.policy": sbr.at(3) or name.at(9),
        "other.plan": sbr.at(4) or other.loop("2330B").segment("NM1").at(3),
    }


def _fill_dates(parts: _Parts) -> Boxes:
    claim = parts.claim
    cause = claim.segment("CLM").at(11, 1)
    illness = next((each for each in ("431", "484") if claim.value("DTP", each, 3)), "")
    date = next((each for each in _OTHER_DATES if claim.value("DTP", each, 3)), "")
    unable, *until = (claim.value("DTP", "314", 3) or claim.value("DTP", "360", 3)).split("-")
    return {
        f"employment.{'yes' if cause == 'EM' else 'no'}": "X",
        f"auto.{'yes' if cause == 'AA' else 'no'}": "X",
        "auto.state": claim.segment("CLM").at(11, 4),
        f"accident.{'yes' if cause == 'OA' else 'no'}": "X",
        **write_date("illness", claim.value("DTP", illness, 3) if illness else ""),
        "illness.qualifier": illness,
        "date.qualifier": date,
        **write_date("date", claim.value("DTP", date, 3) if date else ""),
        **write_date("unable.from", unable),
        **write_date("unable.to", until[0] if until else claim.value("DTP", "361", 3)),
        **write_date("hospital.from", claim.value("DTP", "435", 3)),
        **write_date("hospital.to", claim.value("DTP", "096", 3)),
    }


def _fill_referring(parts: _Parts) -> Boxes:
    """17: the referring provider, else the ordering, else the supervising one."""
    name = next(iter(_list_referring(parts)), None)
    if name is None:
        return {}
    first = " ".join(filter(None, (name.at(4), name.at(5)[:1], name.at(3), name.at(7))))
    return {"referring.qualifier": name.at(1), "referring.name": write_plain(first), "referring.npi": name.at(9)}


def _list_referring(parts: _Parts) -> list[Segment]:
    loops = parts.claim.find_loops("2310A", "2310D", "2420D", "2420E", "2420F")
    names = {each.elements: each for each in (loop.segment("NM1") for loop in loops)}
    return sorted(names.values(), key=lambda each: ("DN", "DK", "DQ").index(each.at(1)))


def _fill_claim(parts: _Parts) -> Boxes:
    claim = parts.claim
    clm = claim.segment("CLM")
    frequency = clm.at(5, 3)
    diagnoses = [each.split(":")[1] for each in claim.segment("HI").elements[1:]]
    references = (claim.value("REF", each) for each in ("G1", "9F", "X4"))
    return {
        "note": claim.value("NTE", "ADD"),
        "laboratory.no": "X",
        "icd": "0",
        **{f"diagnosis.{number}": code for number, code in enumerate(diagnoses, 1)},
        "frequency": frequency if frequency in ("7", "8") else "",
        "original": claim.value("REF", "F8"),
        "authorization": next(filter(None, references), ""),
        "account": clm.at(1),
        f"assignment.{'yes' if clm.at(7) == 'A' else 'no'}": "X",
        "provider.signature": SIGNED,
    }


def _fill_provider(parts: _Parts) -> Boxes:
    """25, 32 and 33. What was done in the office (11) was done at the billing provider's address, unless 2310C says."""
    level = parts.loops.provider
    own, elsewhere = level.loop("2010AA"), parts.claim.loop("2310C")
    employer, social = own.value("REF", "EI"), own.value("REF", "SY")
    place = elsewhere if elsewhere.content else own
    office = bool(elsewhere.content) or parts.claim.segment("CLM").at(5, 1) == "11"
    taxonomy = "" if parts.sbr.at(9) in MEDICARE else level.value("PRV", "BI", 3)
    return {
        "tax.number": employer or social,
        f"tax.{'ein' if employer else 'ssn'}": "X",
        **(write_place("facility", place) if office else {}),
        **write_place("provider", own),
        **write_phone("provider", parts.provider),
        "provider.taxonomy": taxonomy and f"ZZ{taxonomy}",
    }


def _find_wide(pages: Iterable[Mapping[str, str]]) -> Iterator[Issue]:
    """What is longer than its box: told where it is cut, and an error where a cut would change what it says."""
    told: set[tuple[str, str]] = set()
    for page in pages:
        for name, text in page.items():
            box = find_box(name)
            if len(text) <= box.width or (name, text) in told:
                continue
            told.add((name, text))
            where = f"box {box.item}" if box.item else "the payer's address"
            if is_lasting(name):
                sentence = f"`{text}` has {len(text)} characters; {where} has room for {box.width}. Send it as an 837P."
                yield Issue("error", "business-rule", sentence, ("Claim",))
            else:
                sentence = f"`{text}` is cut to {box.width} characters in {where}."
                yield Issue("warning", "informational", sentence, ("Claim",))


def _cut(name: str, text: str) -> str:
    return text[: find_box(name).width].rstrip()


def _list_remarks(parts: _Parts) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What the 837P would say and the form has no box for."""
    claim = parts.claim
    dates = [each.at(1) for each in claim.segments("DTP")]
    if unsaid := [each for each in dates if each not in _SHOWN_DATES]:
        yield f"The form has no box for the date {', '.join(unsaid)} of an 837P.", ("Claim.supportingInfo",)
    for box, kinds in (("14", ("431", "484")), ("15", _OTHER_DATES)):
        if len(several := [each for each in dates if each in kinds]) > 1:
            yield f"Box {box} has room for one date of {', '.join(several)}.", ("Claim.supportingInfo",)
    if len([each for each in ("G1", "9F", "X4") if claim.value("REF", each)]) > 1:
        yield "Box 23 has the authorization alone, without the other numbers.", ("Claim.insurance.preAuthRef",)
    if len(_list_referring(parts)) > 1:
        yield "Box 17 has room for one provider beside the rendering one.", ("Claim.careTeam",)
    if claim.segments("PWK"):
        yield "The attachments go with the form.", ("Claim.supportingInfo",)
    if any(each.segments("AMT", "D") for each in parts.others):
        yield "The other payer's explanation of benefits goes with the form.", ("Claim.insurance",)
    if parts.loops.provider.loops("2010AB"):
        yield "The form has no box for the address that payments go to.", ("Claim.provider",)
    yield from list_line_remarks(claim.loops("2400"))
