"""What an adjustment of a payer means for the ledger: a versioned table by group and CARC, a payer's own rows first."""

from __future__ import annotations

from collections.abc import Mapping

from mappers.billing.adjudications import Adjustment

VERSION = "2026-1"

CONTRACTUAL, DENIAL, PRIOR_PAYER, PATIENT, INFORMATIONAL, UNKNOWN = (
    "contractual", "denial", "prior-payer", "patient", "informational", "unknown",
)  # fmt: skip

_DENIALS = [
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "16",
    "18",
    "19",
    "20",
    "21",
    "22",
    "26",
    "27",
    "29",
    "31",
    "32",
    "33",
    "34",
    "35",
    "39",
    "40",
    "49",
    "50",
    "51",
    "54",
    "55",
    "56",
    "58",
    "60",
    "96",
    "97",
    "107",
    "109",
    "110",
    "119",
    "125",
    "129",
    "140",
    "146",
    "151",
    "163",
    "167",
    "170",
    "171",
    "181",
    "182",
    "183",
    "185",
    "188",
    "189",
    "197",
    "198",
    "199",
    "204",
    "206",
    "207",
    "208",
    "226",
    "227",
    "231",
    "234",
    "236",
    "242",
    "243",
    "251",
    "252",
    "256",
    "258",
    "273",
    "288",
    "B1",
    "B5",
    "B7",
    "B9",
    "B11",
    "B12",
    "B13",
    "B14",
    "B15",
    "B16",
    "B20",
    "B23",
]

CLASSES: dict[tuple[str, str], str] = {
    # (group, CARC) to class; only the contractual class writes off
    **{("CO", reason): CONTRACTUAL for reason in ("45", "253", "42", "A2", "131", "24", "237")},
    **{(group, reason): DENIAL for group in ("CO", "PI", "OA") for reason in _DENIALS},
    **{(group, "23"): PRIOR_PAYER for group in ("OA", "CO", "PI")},
    ("OA", "100"): INFORMATIONAL,
    ("OA", "94"): INFORMATIONAL,
}

NEXT_STEPS: dict[str, str] = {
    "16": "Add what the remark codes name and send the claim again.",
    "18": "Find the claim that this one repeats; void one of the two.",
    "22": "Ask the patient for the order of the coverages and bill the first.",
    "27": "Ask the patient for the coverage of that day.",
    "29": "Appeal with the proof of timely filing, or write off by `$adjust`.",
    "50": "Appeal with the notes that show the need.",
    "97": "Check the bundling edit; add a modifier if the services were distinct, else write off by `$adjust`.",
    "197": "Ask for the authorization afterwards, then send a replacement.",
}
ANY_STEP = "Read the remark codes; correct and replace the claim, or appeal."

Overrides = Mapping[tuple[str, str, str], str]
"""(payer id, group, CARC) to class."""


def classify(adjustment: Adjustment, payer: str = "", overrides: Overrides | None = None) -> str:
    """The class of an adjustment. Group PR is the patient's and CR informational, whatever the reason."""
    own = (overrides or {}).get((payer, adjustment.group, adjustment.reason))
    if own:
        return own
    if adjustment.group in ("PR", "CR"):
        return PATIENT if adjustment.group == "PR" else INFORMATIONAL
    return CLASSES.get((adjustment.group, adjustment.reason), UNKNOWN)
