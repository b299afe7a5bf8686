"""`fhir-server codes` on excerpts with the published headings and invented rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fhir_server.__main__ import cli
from fhir_server.app import Knowledge
from fhir_server.code_sets import read_code_sets
from tests.conftest import serving
from tests.mappers.billing.test_billing_code_sets import ICD, MUE, PTP, hcpcs_line

GOOD_PTP = "".join(line for line in PTP.splitlines(keepends=True) if not line.startswith("1000X"))
GOOD_MUE = "".join(line for line in MUE.splitlines(keepends=True) if ",x," not in line)
GOOD_ICD = "".join(line for line in ICD.splitlines(keepends=True) if line[0].isdigit())


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["codes", *arguments, "--folder", str(folder)])


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(text.encode("latin-1"))
    return str(path)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    return tmp_path / "sets"


def test_each_published_form_becomes_a_set_that_is_looked_up(tmp_path: Path, sets: Path) -> None:
    files = {
        "ptp": GOOD_PTP,
        "mue": GOOD_MUE.replace("Clinical, data", "Décision"),
        "icd-10-cm": GOOD_ICD.replace("\n", "\r\n"),
        "hcpcs": hcpcs_line("J0001", "3", "20100101", "20151231"),
    }
    rows = {"ptp": 2, "mue": 2, "icd-10-cm": 3, "hcpcs": 1}
    for name, text in files.items():
        loaded = run(sets, "load", name, write(tmp_path, f"{name}.txt", text), "--from", "2026-01-01")
        assert loaded.exit_code == 0 and loaded.stdout.startswith(f"{rows[name]} rows of `{name}`"), loaded.output
    assert run(sets, "find", "ptp", "10001+20002").stdout == "0\t1996-01-01\t2019-12-31\n"
    assert run(sets, "find", "mue", "20001").stdout == "4\t3\t2026-01-01\t9999-12-31\n"
    assert run(sets, "find", "icd-10-cm", "E11.9").stdout == "1\t2026-01-01\t9999-12-31\n"
    assert run(sets, "find", "hcpcs", "J0001").stdout == "1\t2010-01-01\t2015-12-31\n"
    assert "`hcpcs` has no `J0002`" in run(sets, "find", "hcpcs", "J0002").stderr


def test_several_files_are_one_set_and_keep_adds_to_it(tmp_path: Path, sets: Path) -> None:
    one, two, three = (write(tmp_path, f"{n}.txt", hcpcs_line(f"J000{n}", "3", "20100101", "")) for n in range(1, 4))
    assert "2 rows" in run(sets, "load", "hcpcs", one, two).stdout
    assert "3 rows" in run(sets, "load", "hcpcs", three, one, "--keep").stdout
    assert "1 rows" in run(sets, "load", "hcpcs", three).stdout
    assert run(sets, "find", "hcpcs", "J0001").exit_code == 1


def test_a_file_with_faults_loads_nothing_and_says_where(tmp_path: Path, sets: Path) -> None:
    path = write(tmp_path, "ptp.txt", PTP)
    refused = run(sets, "load", "ptp", path)
    assert refused.exit_code == 1
    assert "ptp.txt: Line 9 of the PTP file lacks column 2" in refused.stderr and "--skip" in refused.stderr
    assert list(sets.iterdir()) == []
    skipped = run(sets, "load", "ptp", path, "--skip")
    assert skipped.exit_code == 0 and "2 rows" in skipped.stdout and "1 lines were left out" in skipped.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("cpt", "x"), 2, "There is no set `cpt`; the sets are ptp, mue, icd-10-cm, hcpcs"),
        (("ptp", "none.txt"), 1, "none.txt` cannot be read or written"),
        (("ptp", "packed.zip"), 1, "is packed or a spreadsheet"),
        (("ptp", "empty.txt"), 1, "The files have no row of `ptp`"),
        (("ptp", "empty.txt", "--from", "2026-02-30"), 2, "is no period"),
        (("ptp", "empty.txt", "--from", "2026-02-02", "--to", "2026-01-01"), 2, "is no period"),
    ],
)
def test_what_makes_no_sense_leaves_the_set_as_it_was(
    tmp_path: Path, sets: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "packed.zip", "PK\x03\x04 and more")
    write(tmp_path, "empty.txt", "")
    assert run(sets, "load", "ptp", write(tmp_path, "ptp.txt", GOOD_PTP)).exit_code == 0
    refused = run(sets, "load", *arguments)
    assert refused.exit_code == code and text in refused.stderr, refused.output
    assert [each.name for each in sets.iterdir()] == ["ptp"]
    assert run(sets, "find", "ptp", "10001+20001").exit_code == 0


def test_the_list_says_what_is_loaded(tmp_path: Path, sets: Path) -> None:
    run(sets, "load", "mue", write(tmp_path, "mue.csv", GOOD_MUE), "--from", "2026-01-01", "--to", "2026-03-31")
    shown = " ".join(run(sets, "list").stdout.split())
    assert "2026-01-01 to 2026-03-31" in shown and shown.count("not loaded") == 3


@pytest.mark.anyio
async def test_a_running_server_uses_what_was_loaded_again(known: Knowledge, tmp_path: Path, sets: Path) -> None:
    sets.mkdir()
    async with serving(known, store="memory://", code_sets=str(sets)) as client:
        context = client.server.context
        assert read_code_sets(context).hcpcs is None
        for number in (1, 2):
            path = write(tmp_path, "hcpcs.txt", hcpcs_line(f"J000{number}", "3", "20100101", ""))
            assert run(sets, "load", "hcpcs", path).exit_code == 0
            found = read_code_sets(context)
            assert found.hcpcs is not None and found is read_code_sets(context)
            assert [bool(found.hcpcs.find(f"J000{n}")) for n in (1, 2)] == [number == 1, number == 2]


@pytest.mark.anyio
async def test_a_server_without_the_folder_does_not_start(known: Knowledge, sets: Path) -> None:
    with pytest.raises(ValueError, match="`fhir-server codes load` makes it"):
        async with serving(known, store="memory://", code_sets=str(sets)):
            pass
