"""Prints how fast the mappers are: each on one core, and as a ratio to a bare split of the same bytes in the same run.

    python -m scripts.measure_mappers

A figure is the median of several rounds, in processor time; aims are those of `bench/README.md`.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mappers.billing.claim_view import Surroundings, view_claim
from mappers.billing.scrub import scrub_claim
from mappers.billing.split import split_claim
from mappers.hl7v2.bundle import build_bundle
from mappers.hl7v2.er7 import parse_message
from mappers.hl7v2.mapping import map_message
from mappers.hl7v2.partner import Partner
from mappers.x12.claim_to_837p import write_837p
from mappers.x12.tokenizer import read_segments
from tests.mappers.billing.split_scenarios import read_rules, read_scenarios
from tests.mappers.billing.valid_claims import TODAY, make_claims
from tests.mappers.hl7v2.admission import ADMISSION
from tests.mappers.x12.x12_claims import NUMBERS, PARTNER, generate_source

ROUNDS = 7
_SPLITS = 100


class Measure(NamedTuple):
    """One kind of work: `size` things of a `unit` that `run` works on; `text` is what a bare split takes instead."""

    name: str
    unit: str
    size: int
    run: Callable[[], object]
    text: bytes
    separator: bytes


def list_measures() -> Iterator[Measure]:
    """The mappers that have an aim, each with its input made before it is timed."""
    sources = [generate_source(seed) for seed in range(200)]
    file = write_837p(sources, PARTNER, NUMBERS, lambda place: f"{place + 1:04}").text.encode()
    yield Measure("X12 tokenizer", "segments", file.count(b"~"), lambda: list(read_segments(file)), file, b"~")
    yield Measure(
        "837P from resources",
        "claims",
        len(sources),
        lambda: write_837p(sources, PARTNER, NUMBERS, lambda place: f"{place + 1:04}"),
        file,
        b"~",
    )
    claims, around = make_claims(200), Surroundings(today=TODAY)
    yield Measure(
        "scrub",
        "claims",
        len(claims),
        lambda: [scrub_claim(claim, resources, around) for claim, resources in claims],
        file,
        b"~",
    )
    views = [view_claim(claim, resources, around) for claim, resources in claims]
    rules = [read_rules(scenario) for scenario in read_scenarios()]
    yield Measure(
        "split",
        "claims",
        len(views),
        lambda: [
            split_claim(view, rule, "2026-11-20") for view, rule in zip(views, itertools.cycle(rules), strict=False)
        ],
        file,
        b"~",
    )
    yield Measure("ADT^A01 to a bundle", "messages", 50, lambda: _map_admissions(50), ADMISSION.encode() * 50, b"\r")


def _map_admissions(count: int) -> None:
    partner = Partner(name="north")
    for _ in range(count):
        message = parse_message(ADMISSION).message
        assert message is not None
        build_bundle(map_message(message, partner))


def time_work(run: Callable[[], object]) -> float:
    """Seconds of processor time, the median of the rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Print a line for each mapper."""
    for name, unit, size, run, text, separator in list_measures():
        taken = time_work(run)
        bare = time_work(functools.partial(_split, text, separator)) / _SPLITS
        each = f"{size / taken:10,.0f} {unit}/s {taken / size * 1000:8.3f} ms each"
        print(f"{name:22} {each} {taken / bare:8,.0f} × a bare split")


def _split(text: bytes, separator: bytes) -> None:
    for _ in range(_SPLITS):
        text.split(separator)


if __name__ == "__main__":
    main()
