"""Claims to 837P interchanges, 005010X222A1: each claim to loops, those of one provider and subscriber together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mappers.x12 import codes
from mappers.x12.claim_to_2300 import claim_to_2300
from mappers.x12.fault import Fault, Place, find_errors
from mappers.x12.item_to_2400 import find_lines
from mappers.x12.loop import Loop
from mappers.x12.parties import coverage_to_2000b, patient_to_2000c, provider_to_2000a
from mappers.x12.partner import ClaimSource, Mapping837, Partner
from mappers.x12.resource import EMPTY, Resource, get_decimal, get_list, resolve
from mappers.x12.response_to_2320 import coverage_to_2320
from mappers.x12.structure import check_interchange
from mappers.x12.tables.claim import TABLE_837P
from mappers.x12.writer import ControlNumbers, clean, write_interchange, write_set

CLAIMS_PER_SET = 5_000
CLAIMS_PER_LEVEL = 100
OTHER_PAYERS = 10


_Key = tuple[tuple[str, ...], ...]
"""The elements of all segments of a level."""


@dataclass(frozen=True, slots=True)
class Claim837:
    """A claim as loops: the levels of its billing provider, subscriber and, if another, patient; and its 2300."""

    provider: Loop
    subscriber: Loop
    patient: Loop | None
    claim: Loop


Result837 = tuple[Claim837 | None, tuple[Fault, ...]]
"""The loops of a claim, None where it is refused, and what is wrong in it."""


@dataclass(frozen=True, slots=True)
class Written837:
    """An interchange; `faults[n]` are those of claim n (a claim with an error is not in it), `check` our own reader's.

    `text` is empty where no claim could be written. A text with errors in `check` (the envelope) must not be sent.
    """

    text: str
    faults: tuple[tuple[Fault, ...], ...]
    check: tuple[Fault, ...]


def write_837p(
    sources: Sequence[ClaimSource], partner: Partner, numbers: ControlNumbers, set_number: Callable[[int], str]
) -> Written837:
    """One interchange of all claims without errors; `set_number` gives ST02 of the sets by their place from 0.

    Our own reader checks what is written. Where it finds a fault, each claim is checked alone, and those with faults
    are left out: one bad claim never stops the others.
    """
    results = _refuse_doubles([claim_to_loops(source, partner) for source in sources])
    text, check = _write(results, partner, numbers, set_number)
    if find_errors(check):
        results = [_check_alone(each, partner, numbers) for each in results]
        text, check = _write(results, partner, numbers, set_number)
    return Written837(text, tuple(faults for _, faults in results), check)


def _write(
    results: Sequence[Result837], partner: Partner, numbers: ControlNumbers, set_number: Callable[[int], str]
) -> tuple[str, tuple[Fault, ...]]:
    claims = [claim for claim, _ in results if claim is not None]
    sets = []
    for place, start in enumerate(range(0, len(claims), CLAIMS_PER_SET)):
        root = group_claims(claims[start : start + CLAIMS_PER_SET], partner)
        _add_head(root, numbers, f"{numbers.interchange:09}{place:03}")
        sets.append(write_set(TABLE_837P, root, set_number(place)))
    text = write_interchange(partner.envelope, numbers, TABLE_837P, sets) if sets else ""
    return text, check_interchange(text)


def _check_alone(result: Result837, partner: Partner, numbers: ControlNumbers) -> Result837:
    """A claim as it is; without its loops, and with the faults, where a file of it alone has any."""
    claim, faults = result
    _, check = _write([result], partner, numbers, lambda place: "0001")
    return (None, (*faults, *check)) if find_errors(check) else (claim, faults)


def _refuse_doubles(results: Sequence[Result837]) -> list[Result837]:
    """The claims; a second one of a patient control number is refused."""
    numbers: set[str] = set()
    unique: list[Result837] = []
    for claim, faults in results:
        number = claim.claim.segment("CLM").at(1) if claim else ""
        if claim and number in numbers:
            sentence = f"Another claim of this file has the patient control number `{number}`."
            place = Place(loop="2300", segment="CLM", element=1)
            fault = Fault(sentence, place, "element", "7", expression="Claim.identifier")
            unique.append((None, (*faults, fault)))
        else:
            unique.append((claim, faults))
        numbers.add(number)
    return unique


def claim_to_loops(source: ClaimSource, partner: Partner) -> Result837:
    """The loops of a claim and what is wrong in it; no loops where that is an error. Never raises for bad resources."""
    mapping = Mapping837(source, partner)
    insurances = sort_insurances(mapping.claim)
    focal = next((each for each in insurances if each.get("focal") is True), insurances[0] if insurances else EMPTY)
    coverage = resolve(focal.get("coverage"), mapping.resources, mapping.claim)
    if not coverage:
        mapping.tell("The focal coverage is not among the resources.", "Claim.insurance.coverage", "2000B/SBR/1")
        return None, tuple(mapping.faults)
    provider = provider_to_2000a(mapping)
    subscriber = coverage_to_2000b(mapping, coverage, codes.SEQUENCES[min(insurances.index(focal), 10)])
    patient = patient_to_2000c(mapping, coverage)
    claim = claim_to_2300(mapping, focal, coverage, provider)
    _add_other_payers(mapping, claim, insurances, focal)
    faults = tuple(mapping.faults)
    return (None if find_errors(faults) else Claim837(provider, subscriber, patient, claim)), faults


def sort_insurances(claim: Resource) -> list[Resource]:
    """The entries of `Claim.insurance` by sequence: first the primary."""
    return sorted(get_list(claim, "insurance"), key=lambda each: get_decimal(each, "sequence") or 0)


def _add_other_payers(mapping: Mapping837, claim: Loop, insurances: Sequence[Resource], focal: Resource) -> None:
    if len(insurances) - 1 > OTHER_PAYERS:
        sentence = f"The claim has {len(insurances) - 1} other payers; {OTHER_PAYERS} are possible."
        mapping.tell(sentence, "Claim.insurance", "2320/SBR/1")
    if len(insurances) == 1:
        return
    # What is wrong in the lines was told when they were mapped
    count = len(mapping.faults)
    lines = list(zip(find_lines(mapping), claim.loops("2400"), strict=True))
    del mapping.faults[count:]
    place = insurances.index(focal)
    for number, insurance in enumerate(insurances[: OTHER_PAYERS + 1]):
        if number == place:
            continue
        claim.content.append(coverage_to_2320(mapping, insurance, codes.SEQUENCES[number], lines))
        if number < place and not resolve(insurance.get("claimResponse"), mapping.resources, mapping.claim):
            sentence = "A payer that comes first has not decided, or its ClaimResponse is not among the resources."
            expression = f"Claim.insurance[{number}].claimResponse"
            mapping.tell(sentence, expression, "2320/AMT/2", warning=True)


def group_claims(claims: Iterable[Claim837], partner: Partner) -> Loop:
    """The root of a set: claims of one provider under one 2000A, of one subscriber and payer under one 2000B."""
    root = Loop("ST")
    add_parties(root, partner)
    levels: dict[_Key, Loop] = {}
    for claim in claims:
        keys = _make_key(claim.provider)
        provider = _open_level(root, levels, claim.provider, keys)
        keys += _make_key(claim.subscriber)
        subscriber = _open_level(provider, levels, claim.subscriber, keys)
        parent = subscriber
        if claim.patient is not None:
            keys += _make_key(claim.patient)
            parent = _open_level(subscriber, levels, claim.patient, keys)
        parent.content.append(claim.claim)
        if len(parent.loops("2300")) >= CLAIMS_PER_LEVEL:
            del levels[keys]
    return root


def _make_key(loop: Loop) -> _Key:
    return tuple(segment.elements for segment, _ in loop.walk())


def _open_level(parent: Loop, levels: dict[_Key, Loop], level: Loop, keys: _Key) -> Loop:
    """The level of these keys under the parent: the one that is there, else a new one."""
    if keys not in levels:
        levels[keys] = parent.open(level.id)
        levels[keys].content.extend(level.content)
    return levels[keys]


def add_parties(root: Loop, partner: Partner) -> None:
    """1000A and 1000B."""
    submitter, receiver = partner.submitter, partner.receiver
    loop = root.open("1000A")
    entity, name = ("1", submitter.name) if submitter.person else ("2", submitter.name)
    loop.add("NM1", "41", entity, clean(name, 60), "", "", "", "", "46", clean(submitter.id, 80))
    numbers = [
        ("TE", "".join(filter(str.isdigit, submitter.phone))),
        ("EM", clean(submitter.email, 256, extended=True)),
    ]
    elements = [part for kind, value in numbers if value for part in (kind, value)]
    loop.add("PER", "IC", clean(submitter.contact, 60), *elements)
    loop = root.open("1000B")
    loop.add("NM1", "40", "2", clean(receiver.name, 60), "", "", "", "", "46", clean(receiver.id, 80))


def _add_head(root: Loop, numbers: ControlNumbers, reference: str) -> None:
    moment = numbers.moment
    root.add("BHT", "0019", "00", reference, f"{moment:%Y%m%d}", f"{moment:%H%M}", "CH")
