"""X12 interchanges of an invented payer, its partner's file, and how they are posted to `$x12`."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.conftest import Client
from tests.mappers.x12.test_x12_tokenizer import isa

X12 = "application/EDI-X12"


PLAN = """name = "plan"
formats = ["x12"]
{top}
[x12]
envelope = "clearinghouse"
{section}
[x12.ours]
id = "RECEIVER"
name = "Lakeside"
contact = "Office"
phone = "555-555-0142"
[x12.theirs]
id = "SENDER"
name = "Plan One"
"""


def write_plan(folder: Path, top: str = "", section: str = "") -> str:
    """The file of the partner whose interchanges have the ids of `isa`; the folder for the setting `profiles`."""
    partners = folder / "partners"
    partners.mkdir(exist_ok=True)
    (partners / "plan.toml").write_text(PLAN.format(top=top, section=section), encoding="utf-8")
    return str(folder)


def remittance(number: str = "0001", amount: str = "80", trace: str = "T1", paid: str = "80") -> str:
    """An 835 from ST to SE: one claim of 100, whose payment and adjustment make up its charge when 80 is paid."""
    body = (
        f"BPR*I*{amount}*C*ACH*CCP*01*111000012*DA*1*1900010000**01*111000025*DA*1*20260302~TRN*1*{trace}*1900010000~"
        "DTM*405*20260302~N1*PR*PLAN ONE~N3*1 A ST~N4*BOSTON*MA*02108~PER*BL*DESK*TE*5555551212~"
        f"N1*PE*GOOD CLINIC*XX*1700000007~LX*1~CLP*PCN1*1*100*{paid}**12*ICN1~CAS*CO*45*20~"
        "NM1*QC*1*DOE*JANE****MI*M1~"
    )
    return wrap("835", number, body, "")


def wrap(code: str, number: str, body: str, version: str) -> str:
    """A set from ST to SE around its segments; `version`: ST03."""
    head = f"ST*{code}*{number}*{version}~" if version else f"ST*{code}*{number}~"
    return f"{head}{body}SE*{body.count('~') + 2}*{number}~"


def group(*sets: str, code: str = "HP", version: str = "005010X221A1", number: str = "1") -> str:
    """A group of sets."""
    return f"GS*{code}*A*B*20260115*1200*{number}*X*{version}~{''.join(sets)}GE*{len(sets)}*{number}~"


def file(*groups: str, number: str = "000000001", header: str = "") -> str:
    """An interchange of groups."""
    return f"{header or isa(number=number)}{''.join(groups)}IEA*{len(groups)}*{number}~"


async def post(client: Client, text: str | bytes, accept: str = X12, query: str = "") -> httpx.Response:
    """A file posted to `$x12`."""
    body = text.encode() if isinstance(text, str) else text
    return await client.fhir("POST", f"$x12{query}", content=body, headers={"Content-Type": X12, "Accept": accept})


def pick(answer: httpx.Response, *ids: str) -> list[str]:
    """The segments of these ids in an X12 answer."""
    return [each for each in answer.text.split("~") if each.partition("*")[0] in ids]
