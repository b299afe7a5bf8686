"""Small resources and search texts for each type of search parameter (hypothesis), out of so few values that they meet.

https://hl7.org/fhir/R4/search.html#ptypes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Strategy = st.SearchStrategy[Any]

PREFIXES = ("", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a parameter type is tried with.

    `resources`: by type, the members besides `resourceType` and `id`. `criteria`: by type searched, one `name=value`
    with its alternatives. `sorts`: the parameters of `_sort`.
    """

    resources: Mapping[str, st.SearchStrategy[Json]]
    criteria: Mapping[str, st.SearchStrategy[tuple[str, str]]]
    sorts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A search: the type, its criteria, `_sort` (may be "") and `_count`."""

    type: str
    criteria: tuple[tuple[str, str], ...]
    sort: str
    count: int

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As they stand in a query."""
        sort = (("_sort", self.sort),) if self.sort else ()
        return (*self.criteria, *sort, ("_count", str(self.count)))


def searches(kind: Kind) -> st.SearchStrategy[Asked]:
    """Searches of a kind: one to three criteria, mostly sorted."""
    keys = st.builds(
        lambda minus, code: minus + code, st.sampled_from(("", "-")), st.sampled_from((*kind.sorts, "_id"))
    )
    sort = st.lists(keys, max_size=2, unique_by=lambda key: key.lstrip("-")).map(",".join)
    return st.sampled_from(tuple(kind.criteria)).flatmap(
        lambda type: st.builds(
            Asked,
            st.just(type),
            st.lists(kind.criteria[type], min_size=1, max_size=3).map(tuple),
            sort if type == next(iter(kind.criteria)) else st.just(""),
            st.integers(1, 5),
        )
    )


def _typed(type: str, made: list[Json]) -> list[Json]:
    return [
        {"resourceType": type, "id": str(at), **{name: value for name, value in one.items() if value}}
        for at, one in enumerate(made)
    ]


def populations(kind: Kind) -> st.SearchStrategy[list[Json]]:
    """Six resources of each type, with ids `0` to `5`."""
    each = [
        st.lists(members, min_size=6, max_size=6).map(partial(_typed, type)) for type, members in kind.resources.items()
    ]
    return st.tuples(*each).map(lambda lists: [resource for made in lists for resource in made])


def escaped(text: str) -> str:
    r"""As part of a search value: `\`, `,`, `$` and `|` escaped."""
    for special in ("\\", ",", "$", "|"):
        text = text.replace(special, f"\\{special}")
    return text


def _any(*values: Any) -> Strategy:
    return st.sampled_from(values)


def _maybe(values: Strategy) -> Strategy:
    return st.none() | values


def _some(values: Strategy) -> Strategy:
    return st.lists(values, max_size=2)


def _asked(names: tuple[str, ...], values: Strategy) -> st.SearchStrategy[tuple[str, str]]:
    """One of the names with one or two alternatives."""
    return st.tuples(_any(*names), st.lists(values, min_size=1, max_size=2).map(",".join))


def _missing(*codes: str) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(_any(*codes).map(lambda code: f"{code}:missing"), _any("true", "false"))


def _prefixed(values: Strategy) -> Strategy:
    return st.builds(str.__add__, _any(*PREFIXES), values)


_text = st.text("aAéÉb, -|$\\%_'", min_size=1, max_size=4).map(lambda text: f"x{text}".strip())
_name = st.fixed_dictionaries({"family": _text}, optional={"given": st.lists(_text, min_size=1, max_size=2)})
_searched_text = (_text | _any("x", "xa", "XA", "é", "a", "B", "a b")).map(escaped)

STRING = Kind(
    {
        "Patient": st.fixed_dictionaries(
            {"name": _some(_name), "address": _some(st.builds(lambda t: {"city": t}, _text))}
        )
    },
    {
        "Patient": _asked(("name", "family", "given", "address-city", "address"), _searched_text)
        | _asked(("name:exact", "family:exact", "family:contains", "given:contains", "name:contains"), _searched_text)
        | _missing("name", "given", "address-city")
    },
    ("family", "given", "address-city"),
)

_systems = _any("urn:a", "urn:b", "")
_codes = _any("1", "2", "a", "A", "a|b")
_coding = st.builds(
    lambda system, code, display: {
        **({"system": system} if system else {}),
        "code": code,
        **({"display": display} if display else {}),
    },
    _systems,
    _codes,
    _any("", "First", "Zwei Wörter"),
)
_concept = st.builds(
    lambda codings, text: {
        **({"coding": codings} if codings else {}),
        **({"text": text} if text or not codings else {}),
    },
    _some(_coding),
    _any("", "first thing", "other"),
)
_identifier = st.builds(
    lambda system, value, type: {
        **({"system": system} if system else {}),
        "value": value,
        **({"type": {"coding": [{"system": "urn:t", "code": type}], "text": type}} if type else {}),
    },
    _systems,
    _codes,
    _any("", "MR", "SS"),
)
_written_token = st.builds(lambda system, code: f"{system}|{escaped(code)}", _systems, _codes) | _codes.map(escaped)
_token = _written_token | _any("urn:a|", "urn:b|")
_GENDER = "http://hl7.org/fhir/administrative-gender"

TOKEN = Kind(
    {
        "Patient": st.fixed_dictionaries(
            {
                "identifier": _some(_identifier),
                "gender": _maybe(_any("male", "female")),
                "communication": _some(_concept.map(lambda concept: {"language": concept})),
                "meta": _maybe(st.builds(lambda tag: {"tag": [tag]}, _coding)),
            }
        )
    },
    {
        "Patient": _asked(("identifier", "identifier:not", "language", "language:not", "_tag", "_tag:not"), _token)
        | _asked(
            ("gender", "gender:not"), _any("male", "female", "|male", f"{_GENDER}|male", f"{_GENDER}|", "urn:a|male")
        )
        | _asked(("language:text", "_tag:text"), _any("first", "zwei w", "oth", "x"))
        | _asked(("identifier:text",), _any("mr", "ss"))
        | _asked(
            ("identifier:of-type",), st.builds(lambda t, code: f"urn:t|{t}|{escaped(code)}", _any("MR", "SS"), _codes)
        )
        | _asked(
            ("gender:in", "gender:not-in", "language:in"), st.just("http://hl7.org/fhir/ValueSet/administrative-gender")
        )
        | _asked(("_id", "_id:not"), _any("0", "1", "5", "9"))
        | _missing("identifier", "gender", "language", "_tag")
    },
    ("identifier", "gender", "language"),
)

_ids = _any("0", "1", "2", "3")
_BASE = "http://fhir.example"
_to_patient = st.builds(
    lambda form, id: {"reference": form + id},
    _any("Patient/", f"{_BASE}/Patient/", "http://other.example/Patient/"),
    _ids,
) | st.builds(lambda identifier: {"identifier": identifier}, _identifier)
_to_encounter = _ids.map(lambda id: {"reference": f"Encounter/{id}"})
_wanted_patient = st.builds(
    str.__add__, _any("", "Patient/", f"{_BASE}/Patient/", "http://other.example/Patient/"), _ids
)

REFERENCE = Kind(
    {
        "Encounter": st.fixed_dictionaries(
            {
                "status": st.just("planned"),
                "class": st.just({"code": "AMB"}),
                "subject": _maybe(_to_patient),
                "partOf": _maybe(_to_encounter),
            }
        ),
        "Patient": st.fixed_dictionaries({"gender": _maybe(_any("male", "female")), "link": st.just([])}),
        "CarePlan": st.fixed_dictionaries(
            {
                "status": st.just("active"),
                "intent": st.just("plan"),
                "subject": _to_patient,
                "instantiatesCanonical": _some(
                    _any("http://c.example/p", "http://c.example/p|1", "http://c.example/p|1.2")
                ),
            }
        ),
    },
    {
        "Encounter": _asked(("subject", "patient"), _wanted_patient)
        | _asked(("subject:Patient",), _ids)
        | _asked(("subject:identifier",), _token)
        | _asked(("part-of", "part-of:below", "part-of:above"), _ids.map(lambda id: f"Encounter/{id}"))
        | _asked(("subject:Patient.gender", "patient.gender", "part-of.subject:Patient.gender"), _any("male", "female"))
        | _missing("subject", "part-of", "subject:Patient.gender", "part-of.subject"),
        "Patient": _asked(("_has:Encounter:subject:status", "_has:Encounter:patient:status:not"), st.just("planned"))
        | _asked(("_has:Encounter:subject:part-of", "_has:Encounter:subject:_id"), _ids)
        | _asked(("_has:Encounter:subject:_has:Encounter:part-of:_id",), _ids),
        "CarePlan": _asked(
            ("instantiates-canonical", "instantiates-canonical:below", "instantiates-canonical:above"),
            _any("http://c.example/p|1", "http://c.example/p|1.2", "http://c.example/p|2"),
        )
        | _asked(("instantiates-canonical",), _any("http://c.example/p", "http://c.example/q"))
        | _missing("instantiates-canonical"),
    },
    ("subject", "part-of"),
)

_moment = _any(
    *("2019", "2020", "2020-02", "2020-02-29", "2020-03-01", "2020-02-29T12:00:00Z", "2020-02-29T12:00:00+02:00"),
    *("2020-02-29T12:00:00.250Z", "2020-02-29T23:59:59-01:00", "2021-01"),
)
_period = st.fixed_dictionaries({}, optional={"start": _any("2019", "2020-02"), "end": _any("2020-03-01", "2021-01")})
_effective: st.SearchStrategy[Json] = (
    _moment.map(lambda text: {"effectiveDateTime": text})
    | _period.filter(bool).map(lambda period: {"effectivePeriod": period})
    | _any("2020-02-29T12:00:00Z", "2020-03-01T00:00:00.5Z").map(lambda text: {"effectiveInstant": text})
    | st.lists(_any("2020-02-29", "2021-01"), min_size=1, max_size=2).map(
        lambda events: {"effectiveTiming": {"event": events}}
    )
    | st.just({})
)
_OBSERVED = {"status": "final", "code": {"text": "x"}}

DATE = Kind(
    {"Observation": _effective.map(lambda effective: {**_OBSERVED, **effective})},
    {"Observation": _asked(("date",), _prefixed(_moment)) | _missing("date")},
    ("date", "_lastUpdated"),
)

_decimal = _any(0.1, 0.25, 0.5, 1, 1.5, 0.4999, 2)
_number = _any("0.1", "0.25", "0.5", "1", "1.0", "5e-1", "0.50", "1.5", "-1", "1e0", "2")

NUMBER = Kind(
    {
        "RiskAssessment": st.builds(
            lambda values: {
                "status": "final",
                "subject": {"reference": "Patient/0"},
                "prediction": [{"probabilityDecimal": value} for value in values],
            },
            _some(_decimal),
        ),
        "ChargeItem": st.builds(
            lambda value: {
                "status": "billed",
                "code": {"text": "x"},
                "subject": {"reference": "Patient/0"},
                "factorOverride": value,
            },
            _maybe(_decimal),
        ),
    },
    {
        "RiskAssessment": _asked(("probability",), _prefixed(_number)) | _missing("probability"),
        "ChargeItem": _asked(("factor-override",), _prefixed(_number)) | _missing("factor-override"),
    },
    ("probability",),
)

_UCUM = "http://unitsofmeasure.org"
_unit = _any(
    {},
    {"unit": "mg"},
    {"system": _UCUM, "code": "mg", "unit": "milligram"},
    {"system": _UCUM, "code": "g", "unit": "g"},
    {"system": "urn:own", "code": "mg"},
)
_quantity = st.builds(lambda value, unit: {"value": value, **unit}, _any(0.5, 1, 1.5, 500, 1000, 0.0005), _unit)
_wanted_unit = _any("", f"|{_UCUM}|mg", f"|{_UCUM}|g", "||mg", "||milligram", "|urn:own|mg")
_wanted_quantity = st.builds(
    lambda prefix, number, unit: prefix + number + unit,
    _any(*PREFIXES),
    _any("0.5", "1", "1.5", "500", "5e2", "1000", "0.0005", "5.0e-4"),
    _wanted_unit,
)
_component = st.builds(
    lambda code, quantity: {"code": {"coding": [{"system": "urn:a", "code": code}]}, "valueQuantity": quantity},
    _any("1", "2"),
    _quantity,
)

QUANTITY = Kind(
    {
        "Observation": st.builds(
            lambda value, components: {**_OBSERVED, "valueQuantity": value, "component": components},
            _maybe(_quantity),
            _some(_component),
        )
    },
    {
        "Observation": _asked(("value-quantity", "combo-value-quantity", "component-value-quantity"), _wanted_quantity)
        | _missing("value-quantity", "combo-value-quantity")
    },
    ("value-quantity", "component-value-quantity"),
)

_uris = _any(
    *(
        "http://a.example",
        "http://a.example/",
        "http://a.example/fhir",
        "http://a.example/fhir/v",
        "http://a.example/fhirs",
    ),
    *("http://A.example/fhir", "urn:oid:1.2.3", "urn:oid:1.2"),
)
_urls = _uris.filter(lambda uri: uri.startswith("http"))

URI = Kind(
    {
        "ValueSet": st.builds(
            lambda url, profiles, source: {
                "status": "active",
                "url": url,
                "meta": {**({"profile": profiles} if profiles else {}), **({"source": source} if source else {})},
            },
            _maybe(_uris),
            _some(_uris),
            _maybe(_uris),
        )
    },
    {
        "ValueSet": _asked(("url", "_profile", "_source"), _uris)
        | _asked(("url:below", "url:above", "_profile:below", "_source:above"), _urls)
        | _missing("url", "_profile", "_source")
    },
    ("url", "_profile"),
)

_value: st.SearchStrategy[Json] = (
    _quantity.map(lambda quantity: {"valueQuantity": quantity})
    | _text.map(lambda text: {"valueString": text})
    | _concept.map(lambda concept: {"valueCodeableConcept": concept})
    | _moment.filter(lambda text: len(text) != 4 or text > "2019").map(lambda text: {"valueDateTime": text})
    | st.just({})
)
_wanted_code = _any("1", "2", "urn:a|1", "urn:a|2", "urn:b|1", "|1")

COMPOSITE = Kind(
    {
        "Observation": st.builds(
            lambda codings, value, components: {
                "status": "final",
                "code": {"coding": codings, "text": "x"} if codings else {"text": "x"},
                "component": components,
                **value,
            },
            _some(st.builds(lambda code: {"system": "urn:a", "code": code}, _any("1", "2")) | _coding),
            _value,
            _some(_component),
        )
    },
    {
        "Observation": _asked(
            ("code-value-quantity", "component-code-value-quantity", "combo-code-value-quantity"),
            st.builds(lambda code, wanted: f"{code}${wanted}", _wanted_code, _wanted_quantity),
        )
        | _asked(("code-value-string",), st.builds(lambda code, text: f"{code}${text}", _wanted_code, _searched_text))
        | _asked(
            ("code-value-concept",), st.builds(lambda code, other: f"{code}${other}", _wanted_code, _written_token)
        )
        | _asked(("code-value-date",), st.builds(lambda code, when: f"{code}${when}", _wanted_code, _prefixed(_moment)))
        | _missing("code-value-quantity", "component-code-value-quantity", "code-value-string")
    },
    ("code", "date"),
)

_latitude, _longitude = _any(-90, -45.5, 0, 0.01, 45.5, 89.99, 90), _any(-180, -179.99, 0, 0.01, 90, 180)

NEAR = Kind(
    {
        "Location": st.builds(
            lambda at, name: {"position": at and {"latitude": at[0], "longitude": at[1]}, "name": name},
            _maybe(st.tuples(_latitude, _longitude)),
            _any("a", "b"),
        )
    },
    {
        "Location": _asked(
            ("near",),
            st.builds(
                lambda latitude, longitude, reach: f"{latitude}|{longitude}{reach}",
                *(
                    _latitude,
                    _longitude,
                    _any("", "|1", "|2|km", "|2000|m", "|1200|[mi_i]", "|20000|km", "|0|km", "|1113|mi"),
                ),
            ),
        )
        | _missing("near")
        | _asked(("name",), _any("a", "b"))
    },
    ("name",),
)

KINDS = {
    "string": STRING,
    "token": TOKEN,
    "reference": REFERENCE,
    "date": DATE,
    "number": NUMBER,
    "quantity": QUANTITY,
    "uri": URI,
    "composite": COMPOSITE,
    "near": NEAR,
}
