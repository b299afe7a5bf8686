"""The files of partners: what they say, and that a wrong one is told with file, line and reason (docs/partners.md)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.partners import WrongPartner, find_line, read_partner, read_partners
from tests.conftest import serving

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "profiles" / "partners" / "example.toml.sample"

RIGHT = """\
# the laboratory of the county
name = "lab"
formats = [
  "hl7v2",
]
zone = "America/New_York"

[systems]
LAB = "urn:oid:1.2.3"

[transports.folder]
out = "/srv/lab/out"
"""


X12 = """\
name = "payer"
formats = ["x12"]
[x12]
envelope = "clearinghouse"
answers = ["999"]
[x12.ours]
qualifier = "30"
id = "123456789"
name = "North Clinic"
contact = "Office"
phone = "5555550100"
[x12.theirs]
qualifier = "ZZ"
id = "HOUSE"
name = "House"
"""


def write(folder: Path, text: str, name: str = "lab.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_partner_is_what_its_file_says(tmp_path: Path) -> None:
    partner = read_partner(write(tmp_path, RIGHT))
    assert (partner.name, partner.formats, partner.zone) == ("lab", ("hl7v2",), "America/New_York")
    assert partner.systems == {"LAB": "urn:oid:1.2.3"} and partner.retention_days is None
    assert partner.transports.folder is not None
    assert partner.transports.folder.to_endpoint() == {"out": "/srv/lab/out", "suffix": ".txt"}


WRONG = {
    "a key misspelt": (RIGHT.replace("zone", "zoen"), 6, "`zoen`: There is no such key; did you mean `zone`?"),
    "no name": (RIGHT.replace('name = "lab"\n', ""), 1, "`name`: It is needed, and is not there."),
    "a name of capitals": (RIGHT.replace('"lab"', '"Lab"'), 2, "small letters"),
    "an unknown format": (RIGHT.replace('"hl7v2"', '"hl7v3"'), 3, "`formats.0`: Input should be 'hl7v2' or 'x12'"),
    "no zone": (RIGHT.replace("New_York", "Nowhere"), 6, "IANA"),
    "a system that is no URL": (RIGHT.replace("urn:oid:1.2.3", "1.2.3"), 8, "no URL"),
    "a relative path": (RIGHT.replace("/srv", "srv"), 12, "`transports.folder.out`: Write the whole path"),
    "an in without a done": (RIGHT.replace("out =", "in ="), 11, "needs the folders `done` and `failed`"),
    "a transport that is none": (
        RIGHT.replace("folder", "pigeon"),
        11,
        "`transports.pigeon`: Keys are folder, mllp, http.",
    ),
    "an authority without a system": ('default_authority = "X"\n' + RIGHT, 1, "It has no system"),
    "a number as text": (RIGHT.replace("[systems]", 'retention_days = "x"\n[systems]'), 8, "valid integer"),
    "no TOML": (RIGHT.replace("[systems]", "[systems"), 8, "it is not TOML"),
    "a key twice": (RIGHT.replace("zone =", 'name = "b"\nzone ='), 6, "it is not TOML: Cannot overwrite a value"),
    "answers with no folder for them": (X12, 1, "`x12.answers` go to the folder `out`"),
    "an empty file": ("", 1, "`name`: It is needed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_with_line_and_reason(tmp_path: Path, name: str) -> None:
    text, line, says = WRONG[name]
    path = write(tmp_path, text)
    with pytest.raises(WrongPartner) as error:
        read_partners([tmp_path])
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"`{path}`, line {line}: ") and says in first, first


def test_every_fault_of_every_file_is_told(tmp_path: Path) -> None:
    write(tmp_path, RIGHT.replace("zone", "zoen").replace("/srv", "srv"), "a.toml")
    write(tmp_path, "name = 1\n", "b.toml")
    with pytest.raises(WrongPartner) as error:
        read_partners([tmp_path])
    files = [re.match(r"`.*/(.)\.toml`", line) for line in str(error.value).splitlines()]
    assert [found[1] for found in files if found] == ["a", "a", "b", "b"]


def test_a_name_stands_once(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        write(tmp_path, RIGHT, name)
    with pytest.raises(WrongPartner, match=r"b\.toml`: the partner `lab` is in `.*a\.toml` as well"):
        read_partners([tmp_path])


def test_two_partners_do_not_share_an_envelope(tmp_path: Path) -> None:
    """ISA05 to ISA08 and ISA15 tell whose an interchange is."""
    text = X12.replace('answers = ["999"]\n', "")
    assert text != X12
    for name, usage in (("a", "T"), ("b", "P")):
        write(
            tmp_path,
            text.replace('name = "payer"', f'name = "{name}"', 1).replace("[x12]\n", f'[x12]\nusage = "{usage}"\n'),
            f"{name}.toml",
        )
    assert len(read_partners([tmp_path])) == 2
    write(tmp_path, text.replace('name = "payer"', 'name = "c"', 1), "c.toml")
    with pytest.raises(WrongPartner, match=r"c\.toml`: the partner `c` has the ids and the usage of `a`"):
        read_partners([tmp_path])


KEYS = st.text('abcdef -"é', min_size=1, max_size=5)


@given(st.lists(KEYS, unique=True, min_size=1, max_size=8), st.data())
def test_the_line_of_a_key_is_the_one_it_was_written_on(keys: list[str], data: st.DataObject) -> None:
    """Values of one or several lines, comments and empty lines between."""
    lines: list[str] = []
    expected = {}
    for key in keys:
        lines += data.draw(st.sampled_from([[], [""], ["# x = 1"], [f"# {key!r} = 1", ""]]))
        value = data.draw(st.sampled_from(["1", "[\n1,\n]", '"""\nx = 1\n[t]\n"""', "{ a = 1 }"]))
        expected[key] = len(lines) + 1
        escaped = key.replace("\\", "\\\\").replace('"', '\\"')
        lines += f'"{escaped}" = {value}'.split("\n")
    text = "\n".join(["[table]", *lines])
    assert set(tomllib.loads(text)["table"]) == set(keys)
    assert {key: find_line(text, ("table", key)) - 1 for key in keys} == expected


def test_the_sample_is_not_read_and_right_when_it_is_uncommented(tmp_path: Path) -> None:
    assert read_partners([SAMPLE.parent]) == {}
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") for line in lines)
    partner = read_partner(write(tmp_path, "\n".join(line[2:] for line in lines[2:])))
    assert partner.translations["local-weight"]["WT"].code == "29463-7"


@pytest.mark.anyio
async def test_a_start_reads_partners_and_a_wrong_one_stops_it(known: Knowledge, tmp_path: Path) -> None:
    (tmp_path / "partners").mkdir()
    write(tmp_path / "partners", RIGHT)
    async with serving(known, store="memory://", profiles=str(tmp_path)) as client:
        assert list(client.server.context.partners) == ["lab"]
    write(tmp_path / "partners", RIGHT.replace("zone", "zoen"))
    with pytest.raises(ValueError, match=r"lab\.toml`, line 6: `zoen`"):
        async with serving(known, store="memory://", profiles=str(tmp_path)):
            pass


def test_the_command_tells_what_is_wrong_and_what_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folders = {name: tmp_path / name for name in ("in", "done", "failed", "out")}
    endpoint = "\n".join(f'{name} = "{path}"' for name, path in folders.items())
    write(tmp_path, RIGHT.replace('out = "/srv/lab/out"', endpoint))
    result = CliRunner().invoke(cli, ["partners", "check", str(tmp_path)])
    assert result.exit_code == 1 and f"The folder `out` of the partner `lab`, `{folders['out']}`" in result.output
    for path in folders.values():
        path.mkdir()
    result = CliRunner().invoke(cli, ["partners", "check", str(tmp_path)])
    assert result.exit_code == 0 and "America/New_York" in result.output
    write(tmp_path, RIGHT.replace("zone", "zoen"))
    result = CliRunner().invoke(cli, ["partners", "check", str(tmp_path)])
    assert result.exit_code == 1 and "line 6: `zoen`" in result.output
    assert CliRunner().invoke(cli, ["partners", "check", str(tmp_path / "none")]).exit_code == 2
