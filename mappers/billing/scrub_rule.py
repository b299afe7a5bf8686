"""What a row of the table of scrub rules is, and what its findings say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mappers.billing.claim_view import ClaimView


class Hit(NamedTuple):
    """Where a rule found a fault: the index for `{n}` in its FHIRPath, and the value that its sentence names."""

    n: int = 0
    value: str = ""


class Finding(NamedTuple):
    """A fault of a claim; `loop` and `element` are X12's, `wrong` and `mend` are sentences."""

    severity: str
    rule: str
    expression: str
    loop: str
    element: str
    wrong: str
    mend: str


Find = Callable[[ClaimView], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table: `{n}` in the FHIRPath is the place in a list, `{value}` in `wrong` what was found there."""

    id: str
    group: str
    severity: str
    expression: str
    loop: str
    element: str
    wrong: str
    mend: str
    find: Find

    def report(self, hit: Hit, severity: str) -> Finding:
        """The finding for one hit."""
        expression = self.expression.replace("{n}", str(hit.n))
        wrong = self.wrong.replace("{n}", str(hit.n + 1)).replace("{value}", hit.value)
        return Finding(severity, self.id, expression, self.loop, self.element, wrong, self.mend)


def hit_when(fault: bool, value: object = "", n: int = 0) -> tuple[Hit, ...]:
    """One hit where there is a fault, else none."""
    return (Hit(n, str(value)),) if fault else ()
