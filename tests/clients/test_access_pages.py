"""The commands of docs/access/*.md are run as they stand, by a shell, against a server that needs tokens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc.jwk import ECKey

from tests.clients.test_smart_clients import PASSWORD, log_in
from tests.faults.process import ROOT, serving_process

PAGES = ROOT / "docs" / "access"
REDIRECT = "https://growth.example/callback"


class Shell:
    """A folder with the server's command, in which the blocks of a page are run one after the other."""

    def __init__(self, folder: Path, database: Path, base: str) -> None:
        self.folder, self.variables = folder, {"BASE": base}
        command = folder / "fhir-server"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fhir_server "$@"\n')
        command.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")}
        path = f"{folder}:{os.environ['PATH']}"
        self._environment = {**kept, "PATH": path, "FHIR_STORE": f"sqlite:///{database}", "PYTHONPATH": str(ROOT)}

    def run(self, block: str, answers: str = "") -> str:
        """What a block prints. `answers`: what a person types."""
        script = f"set -e\n{block}\nfor name in VERIFIER CHALLENGE TYPE; do echo $name=${{!name}} >> kept; done\n"
        done = subprocess.run(
            ("bash", "-c", script),
            cwd=self.folder,
            env={**self._environment, **self.variables},
            input=answers,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for line in (self.folder / "kept").read_text().splitlines():
            name, _, value = line.partition("=")
            if value:
                self.variables[name] = value
        return done.stdout

    def ask(self, block: str) -> Any:
        """The JSON that a block prints."""
        return json.loads(self.run(block))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    database = tmp_path / "fhir.db"
    with serving_process(database, authentication="on", audit_folder="") as process:
        yield Shell(tmp_path, database, process.base)


def read_blocks(page: str, language: str = "sh") -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_an_app_gets_and_ends_its_tokens_by_the_page(shell: Shell) -> None:
    register, make_verifier, exchange, read, refresh, revoke = read_blocks("apps.md")
    shell.run(register, f"{PASSWORD}\n{PASSWORD}\n")
    shell.run(make_verifier)
    query = {
        "response_type": "code",
        "client_id": "growth-chart",
        "redirect_uri": REDIRECT,
        "scope": "patient/*.rs openid offline_access",
        "state": "nobody guesses it",
        "aud": shell.variables["BASE"],
        "code_challenge": shell.variables["CHALLENGE"],
        "code_challenge_method": "S256",
    }
    patient = {"resourceType": "Patient", "id": "ana"}
    token = shell.run("fhir-server token create --name desk --scope system/Patient.cu").split()[0]
    body = f"-H 'Content-Type: application/fhir+json' -d '{json.dumps(patient)}'"
    shell.run(f'curl -sf -X PUT "$BASE/Patient/ana" -H "Authorization: Bearer {token}" {body}')
    location = log_in(f"{shell.variables['BASE']}/auth/authorize?{urlencode(query)}", patient="ana")
    given = parse_qs(urlsplit(location).query)
    assert (given["state"], given["iss"]) == ([query["state"]], [query["aud"]])
    shell.variables["CODE"] = given["code"][0]
    tokens = shell.ask(exchange)
    assert {"access_token", "expires_in", "scope", "patient", "id_token", "refresh_token"} <= set(tokens)
    shell.variables |= {"TOKEN": tokens["access_token"], "REFRESH": tokens["refresh_token"]}
    assert shell.ask(read)["resourceType"] == "Bundle"
    following = shell.ask(refresh)
    assert following["refresh_token"] != tokens["refresh_token"]
    shell.variables["REFRESH"] = following["refresh_token"]
    assert shell.ask(revoke) == {}
    assert shell.ask(refresh)["error"] == "invalid_grant"


def test_a_system_gets_asks_about_and_ends_its_token_by_the_page(shell: Shell) -> None:
    register, grant, read, introspect, revoke = read_blocks("systems.md")
    (sign,) = read_blocks("systems.md", "python")
    key = ECKey.generate_key("P-384", {"kid": "one", "use": "sig"})
    (shell.folder / "lab-private.json").write_text(json.dumps(key.as_dict(private=True)))
    (shell.folder / "lab-keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    shell.run(register)

    def make_assertion() -> None:
        script = f"import os\nBASE = os.environ['BASE']\n{sign}\nprint(assertion)\n"
        (shell.folder / "sign.py").write_text(script)
        shell.variables["ASSERTION"] = shell.run(f"{sys.executable} sign.py").strip()

    make_assertion()
    shell.variables["TOKEN"] = shell.ask(grant)["access_token"]
    assert shell.ask(read)["resourceType"] == "Bundle"
    assert shell.ask(introspect)["error"] == "invalid_client"  # the assertion was used
    make_assertion()
    assert shell.ask(introspect)["active"] is True
    make_assertion()
    assert shell.ask(revoke) == {}
    make_assertion()
    assert shell.ask(introspect) == {"active": False}
