"""Random claims against pyx12, a validator written by others, and readers against files that were damaged at random."""

from __future__ import annotations

import io
import logging
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.x12.balance import check_remittance
from mappers.x12.claim_status import StatusContext, describe_status, read_statuses, status_to_claim_response
from mappers.x12.claim_to_837p import Written837, write_837p
from mappers.x12.clp_to_claim_response import ResponseContext, clp_to_claim_response
from mappers.x12.eb_to_insurance import EligibilityContext, answer_to_response
from mappers.x12.eligibility import read_271
from mappers.x12.envelope import GroupEnd, InterchangeEnd, TransactionSet, read_interchanges
from mappers.x12.fault import fault_to_issue
from mappers.x12.match_lines import match_lines
from mappers.x12.partner import ClaimSource, Partner
from mappers.x12.read_acknowledgement import read_999
from mappers.x12.reader import Loops, explain_unread, read_set
from mappers.x12.remittance import read_remittance
from mappers.x12.remittance_to_payment import PaymentContext, remittance_to_payment
from mappers.x12.segment import Segment
from mappers.x12.structure import check_set
from mappers.x12.tokenizer import read_segments
from mappers.x12.write_acknowledgement import make_result, write_999, write_set_answer, write_ta1
from mappers.x12.writer import write_loops
from tests.mappers.x12.test_x12_claim import ENVELOPES
from tests.mappers.x12.test_x12_loops import samples
from tests.mappers.x12.x12_claims import NUMBERS, PARTNER, generate_source, make_skeleton

CLAIMS = 520


def write_random(seeds: range, partner: Partner = PARTNER) -> Written837:
    written = write_837p([generate_source(seed) for seed in seeds], partner, NUMBERS, lambda place: f"{place + 1:04}")
    assert [fault for faults in written.faults for fault in faults if fault.severity == "error"] == []
    assert written.check == ()
    return written


def validate_by_pyx12(text: str) -> list[str]:
    """What pyx12 has against a file; none: it accepts it."""
    params = pytest.importorskip("pyx12.params", reason="pyx12 is not installed")
    document = pytest.importorskip("pyx12.x12n_document")
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            told.append(entry.getMessage())

    logger, listener = logging.getLogger("pyx12"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        accepted = document.x12n_document(params.ParamsBase(), io.StringIO(text), None, None)
    finally:
        logger.removeHandler(listener)
    return [] if accepted else told or ["refused"]


@pytest.mark.parametrize("kind", ENVELOPES)
def test_pyx12_accepts_random_valid_claims(kind: str) -> None:
    """Other claims in each kind of envelope, 520 in all."""
    place, share = list(ENVELOPES).index(kind), CLAIMS // len(ENVELOPES) + 1
    written = write_random(range(place * share, (place + 1) * share), ENVELOPES[kind][0])
    assert written.text.count("~CLM*") == share
    assert validate_by_pyx12(written.text) == []


def test_pyx12_refuses_what_is_wrong() -> None:
    """That the oracle can say no."""
    text = write_random(range(3)).text
    assert validate_by_pyx12(text.replace("~SV1*HC:", "~SV1*HQ:", 1)) != []
    assert validate_by_pyx12(text.replace("~HI*", "~HX*", 1)) != []


def test_the_random_claims_have_every_kind() -> None:
    text = write_random(range(CLAIMS)).text
    kinds = (
        "~PAT*", "~SVD*", "~AMT*D*", ":B:7*", ":B:8*", "~LIN**N4*", "*MJ*", "~CLM*", "*AA:::TX", "*EM~", "~NM1*77*",
        "~NM1*DN*", "~NM1*DQ*", "~NM1*DK*", "~LX*50~", "~PWK*", "~NTE*", "*RD8*", "~DTP*573*",
    )  # fmt: skip
    assert [kind for kind in kinds if kind not in text] == []


LFH = Path(__file__).resolve().parents[3] / ".venv" / "x12" / "bin" / "python"
_VALIDATE = """
import sys
from linuxforhealth.x12.io import X12ModelReader
with X12ModelReader(sys.stdin.read()) as reader:
    print(len(list(reader.models())))
"""


def validate_by_lfh(text: str) -> str:
    """How many sets linuxforhealth-x12 reads, or what it says; it has an interpreter of its own (`make test-full`)."""
    if not LFH.exists():
        pytest.skip("linuxforhealth-x12 has no environment here; `make test-full` makes it")
    done = subprocess.run([LFH, "-c", _VALIDATE], input=text, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.long
@pytest.mark.parametrize("kind", ENVELOPES)
def test_both_accept_all_random_valid_claims_in_each_envelope(kind: str) -> None:
    text = write_random(range(CLAIMS), ENVELOPES[kind][0]).text
    assert text.count("~CLM*") == CLAIMS
    assert (validate_by_lfh(text), validate_by_pyx12(text)) == ("1", [])


@pytest.mark.long
def test_linuxforhealth_refuses_what_is_wrong() -> None:
    """That the oracle can say no."""
    text = write_random(range(3)).text
    assert "hi_segment" in validate_by_lfh(re.sub(r"~HI\*[^~]*", "", text, count=1).replace("~SE*", "~SE*0"))


def exercise(raw: bytes) -> None:
    """Everything that is done with a received file."""
    results: list[list[Segment]] = []
    for event in read_interchanges(raw):
        if isinstance(event, TransactionSet):
            loops = read_set(event)
            faults = loops.faults if loops else (*event.faults, explain_unread(event))
            assert all(fault_to_issue(fault).diagnostics for fault in faults)
            results.append(write_set_answer(make_result(event, faults)))
            if loops:
                exercise_set(loops)
        elif isinstance(event, GroupEnd):
            assert write_999(event, results, "0001")[-1].id == "SE"
        elif isinstance(event, InterchangeEnd):
            assert write_ta1(event.interchange.isa, event.faults).at(4) in ("A", "R")


def exercise_set(loops: Loops) -> None:
    assert list(write_loops(loops.root, loops.table))
    check_set(loops)
    match loops.table.code:
        case "835":
            remittance = read_remittance(loops)
            check_remittance(remittance)
            for claim in remittance.claims:
                context = ResponseContext(
                    "Claim/1",
                    "Patient/1",
                    "Organization/1",
                    "2026-02-01",
                    sequences=match_lines(claim, make_skeleton()).sequences,
                )
                clp_to_claim_response(claim, remittance, context)
            remittance_to_payment(remittance, PaymentContext("2026-02-01"))
        case "277":
            for status in read_statuses(loops):
                describe_status(status)
                status_to_claim_response(status, StatusContext("Claim/1", "Patient/1", "Organization/1", "2026-02-01"))
        case "271":
            for answer in read_271(loops):
                answer_to_response(answer, EligibilityContext("r", "p", "i", "c", "2026-02-01"))
        case "999":
            read_999(loops)


@st.composite
def damage(draw: st.DrawFn, texts: list[bytes]) -> bytes:
    """A file with a few bytes replaced, removed, doubled or moved, or cut off."""
    raw = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, len(raw))), draw(st.integers(0, 30))
        piece = draw(
            st.one_of(
                st.just(b""),
                st.just(raw[at : at + size] * 2),
                st.binary(max_size=8),
                st.sampled_from(
                    [b"~", b"*", b":", b"^", b"~HL*1**20*1~", b"~SE*1*1~", b"~ST*835*1~", b"1e9", b"-", b"99999999"]
                ),
            )
        )
        raw = raw[:at] + piece + raw[at + size :]
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw


@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_837_never_raises(data: st.DataObject) -> None:
    exercise(data.draw(damage([write_random(range(2)).text.encode()])))


def test_a_damaged_sample_never_raises(shared: Path) -> None:
    texts = [path.read_bytes() for path in samples(shared)]

    @settings(max_examples=300)
    @given(raw=damage(texts))
    def check(raw: bytes) -> None:
        exercise(raw)

    check()


@settings(max_examples=100)
@given(raw=st.binary(max_size=300))
def test_random_bytes_never_raise(raw: bytes) -> None:
    exercise(raw)
    exercise(
        b"ISA*00*          *00*          *ZZ*A              *ZZ*B              *260115*1200*^*00501*000000001*0*T*:~"
        + raw
    )


def replace_at(value: Any, path: Sequence[int], new: object) -> Any:
    """A copy of a tree in which the node that the numbers lead to is another."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, dict):
        key = sorted(value)[path[0] % len(value)]
        return {**value, key: replace_at(value[key], path[1:], new)}
    place = path[0] % len(value)
    return [*value[:place], replace_at(value[place], path[1:], new), *value[place + 1 :]]


STRANGE: st.SearchStrategy[object] = st.sampled_from(
    [None, [], {}, "", "x" * 200, "~*:^", "Zoë", 0, -1, 1.5, True, [None], [[]], {"a": 1}, [{}], 10**40, "NaN", "1E999"]
)


@settings(max_examples=400)
@given(seed=st.integers(0, 60), path=st.lists(st.integers(0, 20), min_size=1, max_size=6), new=STRANGE)
def test_a_strange_resource_is_refused_or_written_rightly(seed: int, path: list[int], new: object) -> None:
    """Never an exception, and never a file that our own reader cannot read."""
    source = generate_source(seed)
    tree = replace_at({"claim": source.claim, "resources": dict(source.resources)}, path, new)
    claim, resources = tree["claim"], tree["resources"]
    if not isinstance(claim, dict) or not isinstance(resources, dict):
        return
    known = {key: value for key, value in resources.items() if isinstance(value, dict)}
    written = write_837p([ClaimSource(claim, known, source.frequency)], PARTNER, NUMBERS, lambda place: "0001")
    assert written.text or written.faults[0]
    assert written.check == ()
    if written.text:
        assert [s.id for s in read_segments(written.text)][-2:] == ["GE", "IEA"]


def test_an_empty_claim_is_refused_with_sentences() -> None:
    written = write_837p([ClaimSource({}, {})], PARTNER, NUMBERS, lambda place: "0001")
    assert (written.text, len(written.faults[0])) == ("", 1)
