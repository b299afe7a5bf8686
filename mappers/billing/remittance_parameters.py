"""A remittance as Parameters, and read from them: what the 835 reader makes and what a person types are the same.

https://hl7.org/fhir/R4/parameters.html. Each table is a kind of part: its name, and the element of the remittance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from fhir_server.fhir.outcome import Issue
from mappers.billing.adjudications import Adjustment
from mappers.billing.fields import Resource
from mappers.billing.remittance import ClaimPayment, PaymentLine, ProviderAdjustment, Remittance

MOST_CLAIMS = 200
"""Claims of one remittance that is typed: it posts in one transaction."""
_LARGEST = Decimal("9999999999.99")
_LONGEST = 200


class _Part(NamedTuple):
    """A row: the element of the dataclass, how it is read, whether it is needed, whether it repeats."""

    element: str
    kind: str = "text"
    needed: bool = False
    repeats: bool = False


_ADJUSTMENT = {
    "group": _Part("group", needed=True),
    "reason": _Part("reason", needed=True),
    "amount": _Part("amount", "amount", needed=True),
    "quantity": _Part("quantity", "number"),
}
_LINE = {
    "code": _Part("code", needed=True),
    "charge": _Part("charge", "amount", needed=True),
    "paid": _Part("paid", "amount", needed=True),
    "modifier": _Part("modifiers", repeats=True),
    "units": _Part("units", "number"),
    "date": _Part("day", "day"),
    "line-control-number": _Part("control_number"),
    "original-code": _Part("original_code"),
    "allowed": _Part("allowed", "amount"),
    "adjustment": _Part("adjustments", "adjustment", repeats=True),
    "remark": _Part("remarks", repeats=True),
}
_CLAIM = {
    "control-number": _Part("control_number", needed=True),
    "status": _Part("status", needed=True),
    "charge": _Part("charge", "amount", needed=True),
    "paid": _Part("paid", "amount", needed=True),
    "patient-responsibility": _Part("patient_responsibility", "amount"),
    "payer-control-number": _Part("payer_number"),
    "filing": _Part("filing"),
    "member-id": _Part("member_id"),
    "corrected-member-id": _Part("corrected_member_id"),
    "first-date": _Part("first_day", "day"),
    "crossover-payer": _Part("crossover_payer"),
    "adjustment": _Part("adjustments", "adjustment", repeats=True),
    "remark": _Part("remarks", repeats=True),
    "line": _Part("lines", "line", repeats=True),
}
_PROVIDER = {
    "reason": _Part("reason", needed=True),
    "reference": _Part("reference"),
    "amount": _Part("amount", "amount", needed=True),
}
REMITTANCE = {
    "trace": _Part("trace", needed=True),
    "payer-number": _Part("payer_number", needed=True),
    "amount": _Part("amount", "amount", needed=True),
    "date": _Part("payment_day", "day", needed=True),
    "produced": _Part("produced", "day"),
    "method": _Part("method"),
    "payer-name": _Part("payer_name"),
    "payee": _Part("payee"),
    "currency": _Part("currency"),
    "claim": _Part("claims", "claim", repeats=True),
    "provider-adjustment": _Part("provider_adjustments", "provider", repeats=True),
}
_KINDS: dict[str, tuple[Mapping[str, _Part], Callable[..., Any]]] = {
    "adjustment": (_ADJUSTMENT, Adjustment),
    "line": (_LINE, PaymentLine),
    "claim": (_CLAIM, ClaimPayment),
    "provider": (_PROVIDER, ProviderAdjustment),
}


class _Wrong(Exception):
    """What is wrong with a part, and its name."""


def parameters_to_remittance(parameters: Iterable[Resource]) -> Remittance | Issue:
    """The remittance of the parts of a Parameters, or the first Issue: which part, and what it needs."""
    try:
        values = _read_parts(parameters, REMITTANCE, "$post")
    except _Wrong as wrong:
        return Issue("error", "value", str(wrong.args[0]), (str(wrong.args[1]),))
    if len(values.get("claims", ())) > MOST_CLAIMS:
        return _refuse_many()
    made = Remittance(**values)
    return replace(made, digest=made.make_digest())


def parameters_to_claims(parameters: Iterable[Resource]) -> tuple[ClaimPayment, ...] | Issue:
    """The claims of the parts `claim` of a Parameters, none where there are none; or the first Issue."""
    try:
        claims: tuple[ClaimPayment, ...] = _read_parts(parameters, {"claim": REMITTANCE["claim"]}, "$post").get(
            "claims", ()
        )
    except _Wrong as wrong:
        return Issue("error", "value", str(wrong.args[0]), (str(wrong.args[1]),))
    return _refuse_many() if len(claims) > MOST_CLAIMS else claims


def _refuse_many() -> Issue:
    text = f"A remittance that is typed has at most {MOST_CLAIMS} claims; send the 835, or several remittances."
    return Issue("error", "too-costly", text, ("claim",))


def _read_parts(parts: Iterable[Resource], table: Mapping[str, _Part], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in parts:
        name = str(part.get("name", ""))
        row = table.get(name)
        if row is None:
            known = ", ".join(f"`{each}`" for each in table)
            raise _Wrong(f"`{where}` has no part `{name}`; it has {known}.", name)
        value = _read_value(part, row, name)
        if row.repeats:
            values[row.element] = (*values.get(row.element, ()), value)
        elif row.element in values:
            raise _Wrong(f"`{name}` stands twice in `{where}`.", name)
        else:
            values[row.element] = value
    missing = [name for name, row in table.items() if row.needed and row.element not in values]
    if missing:
        raise _Wrong(f"`{where}` needs `{missing[0]}`.", missing[0])
    return values


def _read_value(part: Resource, row: _Part, name: str) -> Any:
    if row.kind in _KINDS:
        table, make = _KINDS[row.kind]
        if not isinstance(part.get("part"), list):
            raise _Wrong(f"`{name}` consists of parts.", name)
        return make(**_read_parts(part["part"], table, name))
    value = next((each for key, each in part.items() if key.startswith("value")), None)
    if row.kind == "amount" and isinstance(value, Mapping):
        if value.get("currency", "USD") != "USD":
            raise _Wrong(f"`{name}` is in `{value['currency']}`; only US dollars (USD) are posted.", name)
        value = value.get("value")
    if value is None or isinstance(value, Mapping | list | bool):
        raise _Wrong(f"`{name}` needs one value.", name)
    return _READERS[row.kind](str(value), name)


def _read_text(text: str, name: str) -> str:
    if len(text) > _LONGEST or not text.isprintable():
        raise _Wrong(f"`{name}` is text of at most {_LONGEST} printable characters.", name)
    return text


def _read_number(text: str, name: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) > _LARGEST:
        raise _Wrong(f"`{name}` is a number of at most ten digits before the point, not `{text[:40]}`.", name)
    return number


def _read_amount(text: str, name: str) -> Decimal:
    amount = _read_number(text, name)
    if amount != amount.quantize(Decimal("0.01")):
        raise _Wrong(f"`{name}` has at most two places, not `{text[:40]}`.", name)
    return amount


def _read_day(text: str, name: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Wrong(f"`{name}` is a day such as 2026-03-31, not `{text[:40]}`.", name) from None


_READERS: dict[str, Callable[[str, str], Any]] = {
    "text": _read_text,
    "number": _read_number,
    "amount": _read_amount,
    "day": _read_day,
}


def remittance_to_parameters(remittance: Remittance) -> Resource:
    """The Parameters that `parameters_to_remittance` reads."""
    return {"resourceType": "Parameters", "parameter": _write_parts(remittance, REMITTANCE)}


def _write_parts(found: Any, table: Mapping[str, _Part]) -> list[Resource]:
    parts: list[Resource] = []
    for name, row in table.items():
        value = getattr(found, row.element)
        for each in value if row.repeats else (value,):
            if each is not None and each != "":
                parts.append({"name": name, **_write_value(each, row)})
    return parts


def _write_value(value: Any, row: _Part) -> Resource:
    if row.kind in _KINDS:
        return {"part": _write_parts(value, _KINDS[row.kind][0])}
    if row.kind in ("amount", "number"):
        return {"valueDecimal": value}
    return {"valueDate": str(value)} if row.kind == "day" else {"valueString": str(value)}
