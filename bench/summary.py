"""What the bench found, as JSON and as tables (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measuring import NO_ANSWER, Samples, find_percentile


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """One phase on one server.

    `unit`: what `rate` counts per second. `by_label`: whether the labels are reported one by one (the searches).
    `totals`: how many resources each search found once.
    """

    phase: str
    url: str
    samples: Samples
    unit: str = "requests"
    by_label: bool = False
    totals: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Right answers, or their resources, per second."""
        done = self.samples.resources if self.unit == "resources" else self.samples.ok
        return done / self.samples.seconds if self.samples.seconds else 0.0


def compute_percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms."""
    ordered = sorted(seconds)
    return {f"p{share}_ms": round(find_percentile(ordered, share / 100) * 1000, 3) for share in (50, 95, 99)}


def describe_machine() -> dict[str, Any]:
    """The facts without which figures say nothing: time, system, processor, cores, memory in MB, load, Python."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _read_first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": int((_read_first("/proc/meminfo", "MemTotal") or "0").split()[0]) // 1024 or None,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }


def make_json_tree(measured: Sequence[PhaseResult]) -> list[dict[str, Any]]:
    """Every measured phase as a JSON tree."""
    return [_make_tree(one) for one in measured]


def _make_tree(one: PhaseResult) -> dict[str, Any]:
    samples = one.samples
    tree: dict[str, Any] = {
        "phase": one.phase,
        "url": one.url,
        "seconds": round(samples.seconds, 3),
        "ok": samples.ok,
        "resources": samples.resources,
        "unit": one.unit,
        "per_second": round(one.rate, 1),
        **compute_percentiles(samples.all_latencies()),
        "errors": {
            str(status): {"count": count, "first": samples.first_texts[status]}
            for status, count in sorted(samples.errors.items())
        },
    }
    if one.by_label:
        tree["queries"] = {
            label: {"ok": len(took), **compute_percentiles(took), "total": one.totals.get(label)}
            for label, took in sorted(samples.latencies.items())
        }
    return tree


def print_tables(measured: Sequence[PhaseResult], urls: Sequence[str], console: Console) -> None:
    """A row for each phase and server, then the searches one by one, then the first text of each error."""
    console.print(_make_phase_table(measured, urls))
    for phase in dict.fromkeys(one.phase for one in measured if one.by_label):
        console.print(_make_label_table(phase, {one.url: one for one in measured if one.phase == phase}, urls))
    for one in measured:
        for status, text in one.samples.first_texts.items():
            said = "no answer" if status == NO_ANSWER else str(status)
            line = f"{one.phase} on {one.url}: {one.samples.errors[status]} times {said}, first: {text}"
            console.print(line, style="red", markup=False, highlight=False)


def _make_phase_table(measured: Sequence[PhaseResult], urls: Sequence[str]) -> Table:
    table = Table("phase", "server", title="ok answers only")
    for column in ("per second", "p50 ms", "p95 ms", "p99 ms", "ok", "errors", *(("ratio",) if len(urls) > 1 else ())):
        table.add_column(column, justify="right")
    for one in measured:
        took = compute_percentiles(one.samples.all_latencies())
        cells = [f"{one.rate:,.0f} {one.unit}", *(f"{value:,.2f}" for value in took.values())]
        cells += [f"{one.samples.ok:,}", f"{one.samples.errors.total():,}"]
        table.add_row(one.phase, one.url, *cells, *([_compute_ratio(one, measured, urls)] if len(urls) > 1 else []))
    return table


def _compute_ratio(one: PhaseResult, measured: Sequence[PhaseResult], urls: Sequence[str]) -> str:
    """How many times the other server's rate the first one has; shown on the first one's row."""
    if one.url != urls[0]:
        return ""
    other = next((two for two in measured if two.phase == one.phase and two.url == urls[1]), None)
    return f"{one.rate / other.rate:.2f}" if other and other.rate else "-"


def _make_label_table(phase: str, by_url: Mapping[str, PhaseResult], urls: Sequence[str]) -> Table:
    table = Table("query", title=f"{phase}: {' | '.join(urls)}")
    for _ in urls:
        for column in ("p50 ms", "p95 ms", "total"):
            table.add_column(column, justify="right")
    for label in sorted({label for one in by_url.values() for label in one.samples.latencies}):
        cells: list[str] = []
        for url in urls:
            took = compute_percentiles(by_url[url].samples.latencies.get(label, ()))
            total = by_url[url].totals.get(label)
            cells += [f"{took['p50_ms']:.2f}", f"{took['p95_ms']:.2f}", "-" if total is None else f"{total:,}"]
        table.add_row(label, *cells)
    return table


def _read_first(path: str, name: str) -> str:
    """The first value of `name` in a `name: value` file of the system, or ""."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
