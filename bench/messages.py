"""The phase of HL7 v2: messages by MLLP, each answered before the next of its connection (method: `bench/README.md`).

https://www.hl7.org/documentcenter/public/wg/inm/mllp_transport_specification.PDF (release 1). Each run takes patients
and control numbers of its own, so that no message repeats one of another run.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from bench.measuring import NO_ANSWER, SLICE, TIME_LIMIT, Limits, Samples

CONNECTIONS = 8
KNOWN = 100
"""Patients whom updates and results are about, in turn."""

_FRAME, _END = b"\x0b%b\x1c\r", b"\x1c\r"
_HEADER = "MSH|^~\\&|BENCH|CLINIC|FHIR|HERE|{time}-0600||{event}|{number}|P|2.5.1"
_PATIENT = (
    "PID|1||{patient}^^^BENCH^MR||QUILL^ADA^M^^^^L||19700102|F||2106-3^White^CDCREC|1 OAK ST^^SPRINGFIELD^IL^62701"
)
_TIME = 20240305120000


@dataclass(frozen=True, slots=True)
class Receiver:
    """A listener that takes HL7 v2 by MLLP."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """How it is named in the results."""
        return f"mllp://{self.host}:{self.port}"


Write = Callable[[str, int], bytes]
"""(mark of the run, number of the message) → the message."""


def write_admission(mark: str, number: int) -> bytes:
    """An ADT^A01 of a new patient: visit, account, three doctors, a relative, an allergy, a diagnosis, insurance."""
    return _join(
        _HEADER.format(time=_TIME, event="ADT^A01^ADT_A01", number=f"{mark}A{number}"),
        f"EVN|A01|{_TIME}-0600",
        _PATIENT.format(patient=f"{mark}{number}") + f"^USA^H||5550101|5550102|eng|M||{mark}C{number}^^^BENCHAC",
        "NK1|1|QUILL^BEA|MTH^Mother^HL70063|1 OAK ST^^SPRINGFIELD^IL^62701|5550103",
        "PV1|1|I|WARD^12^2^CLINIC||||1700000007^WREN^IVO^^^DR^^^NPI|1700000015^FINCH^EVE||MED||||1|||"
        f"1700000023^LARK^ROY||{mark}V{number}^^^BENCHVN|||||||||||||||||||||||||20240305115500-0600",
        "AL1|1|DA|7980^PENICILLIN^RXNORM|SV|RASH",
        "DG1|1||J06.9^URI^I10C||20240305|A",
        "IN1|1|GOLD^Gold plan|99^^^BENCHPAYERS|ACME HEALTH|2 ELM ST^^PEORIA^IL^61602|||G1||||20240101|20241231|||"
        "QUILL^ADA|SEL|19700102||||||||||||||||||W1",
    )


def write_update(mark: str, number: int) -> bytes:
    """An ADT^A08 of a known patient: another telephone number."""
    patient = _PATIENT.format(patient=f"{mark}{number % KNOWN + 1}")
    return _join(
        _HEADER.format(time=_TIME + 10_000, event="ADT^A08^ADT_A01", number=f"{mark}U{number}"),
        f"{patient}^USA^H||{5_550_000 + number}",
    )


def write_result(mark: str, number: int) -> bytes:
    """An ORU^R01 about a known patient: a report with three values."""
    values = (
        ("718-7", "Hemoglobin", "g/dL", 13),
        ("4544-3", "Hematocrit", "%", 40),
        ("777-3", "Platelets", "/nL", 250),
    )
    return _join(
        _HEADER.format(time=_TIME + 20_000, event="ORU^R01^ORU_R01", number=f"{mark}R{number}"),
        _PATIENT.format(patient=f"{mark}{number % KNOWN + 1}"),
        f"OBR|1|{mark}P{number}^BENCH|{mark}F{number}^BENCHLAB|58410-2^CBC^LN|||{_TIME}-0600|||||||||1700000007^WREN^IVO|||||"
        f"|{_TIME + 10_000}-0600||LAB|F",
        *(
            f"OBX|{place}|NM|{code}^{name}^LN||{value + number % 7}|{unit}^^UCUM||N|||F|||{_TIME}-0600"
            for place, (code, name, unit, value) in enumerate(values, 1)
        ),
    )


MESSAGES: dict[str, Write] = {"ADT^A01": write_admission, "ADT^A08": write_update, "ORU^R01": write_result}
"""In this order: the first makes the patients that the others are about."""


def _join(*segments: str) -> bytes:
    return "".join(f"{each}\r" for each in segments).encode("ascii")


class Sender:
    """The connections to one listener, each of which waits for the acknowledgement of what it has sent."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._mark = uuid.uuid4().hex[:10].upper()
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Connect. Raises OSError."""
        for _ in range(CONNECTIONS):
            self._streams.append(await asyncio.open_connection(self._receiver.host, self._receiver.port))

    def close(self) -> None:
        """End the connections."""
        for _, writer in self._streams:
            writer.close()

    async def send(self, label: str, numbers: Iterator[int], samples: Samples, most: float, end: float) -> None:
        """Send messages of a kind by all connections until `end` (of `perf_counter`), `most` of them at most."""
        began, left = time.perf_counter(), most

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal left
            while left > 0 and time.perf_counter() < end:
                left -= 1
                message, start = MESSAGES[label](self._mark, next(numbers)), time.perf_counter()
                writer.write(_FRAME % message)
                answer = await asyncio.wait_for(reader.readuntil(_END), TIME_LIMIT)
                if b"\rMSA|AA|" in answer:
                    samples.latencies[label].append(time.perf_counter() - start)
                else:
                    samples.wrong(NO_ANSWER, f"{label}: {answer.decode('utf-8', 'replace')}")

        await asyncio.gather(*(work(*each) for each in self._streams))
        samples.seconds += time.perf_counter() - began


async def measure_messages(receivers: Sequence[Receiver], limits: Limits) -> dict[str, list[Samples]]:
    """By kind of message what each listener did; they take turns. Raises OSError, ValueError when one hangs up."""
    senders = [Sender(each) for each in receivers]
    results: dict[str, list[Samples]] = {}
    try:
        for sender in senders:
            await sender.open()
        for label in MESSAGES:
            results[label] = await _measure_kind(senders, label, limits)
    except asyncio.IncompleteReadError:
        raise ValueError("A listener ended a connection without an acknowledgement.") from None
    finally:
        for sender in senders:
            sender.close()
    return results


async def _measure_kind(senders: Sequence[Sender], label: str, limits: Limits) -> list[Samples]:
    results, numbers = [Samples() for _ in senders], [count(1) for _ in senders]
    rounds = 1 if limits.seconds is None else max(1, math.ceil(limits.seconds / SLICE))
    for turn in range(rounds):
        for sender, own, samples in zip(senders, numbers, results, strict=True):
            seconds = math.inf if limits.seconds is None else limits.seconds / rounds
            most = math.inf if limits.requests is None else limits.requests * (turn + 1) // rounds - samples.ok
            await sender.send(label, own, samples, most, time.perf_counter() + seconds)
    return results
