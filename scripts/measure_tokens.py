"""Prints what reads and searches cost with tokens, as ratios to the same requests without authentication.

    python -m scripts.measure_tokens FOLDER [TURNS]

Two servers of one worker each on copies of one SQLite file that holds the bundles of FOLDER: one without
authentication, one with it, its audit on, which trusts a small issuer in this process. They get the same requests in
turns. The ratio is the processor time of the first by that of the second, the median of the turns.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import RSAKey

from bench.http import Connection, connect, parse_target

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = {"read": 2000, "search": 400}
CONNECTIONS = 4
READ = 400
"""Resources that are read again and again."""
SEARCHES = (
    "Observation?patient=Patient/{id}&_count=20",
    "Encounter?patient=Patient/{id}&_sort=-date&_count=10",
    "Condition?patient=Patient/{id}&clinical-status=active",
    "Patient?_id={id}",
)
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a process of its own; `base`: its base URL."""

    pid: int
    base: str

    def read_time(self) -> float:
        """Seconds of processor time of the process and its workers (Linux)."""
        return sum(_read_time(pid) for pid in _list_processes(self.pid))


def _list_processes(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(each for child in children for each in _list_processes(int(child)))]


def _read_time(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="utf-8").split()[0]) for thread in threads) / 1e9


def find_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def publish_keys() -> AsyncIterator[str]:
    """The URL of an issuer that says which keys it signs with."""
    port = find_port()
    issuer = f"http://127.0.0.1:{port}"
    documents = {
        "/keys": {"keys": [KEY.as_dict(private=False)]},
        "/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{issuer}/keys"},
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1].decode()
        while (await reader.readline()).strip():
            pass
        body = json.dumps(documents[path]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield issuer


def make_environment(**settings: str) -> dict[str, str]:
    """What a command of the server sees: these settings, and none of the machine's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")}
    return {**kept, "FHIR_WORKERS": "off", **{f"FHIR_{name.upper()}": value for name, value in settings.items()}}


def run(*arguments: str) -> str:
    """What a command of the server prints."""
    command = (sys.executable, "-m", "fhir_server", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=make_environment()).stdout


@asynccontextmanager
async def serve(folder: Path, name: str, **settings: str) -> AsyncIterator[Server]:
    """A server of the file `<name>.db` in the folder."""
    port = find_port()
    options = ("--store", f"sqlite:///{folder}/{name}.db", "--port", str(port), "--workers", "1")
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "fhir_server", "serve", *options),
            env=make_environment(**settings),
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
    try:
        server = Server(process.pid, f"http://127.0.0.1:{port}/fhir")
        await wait_for(server.base)
        yield server
    finally:
        process.terminate()
        process.wait(60)


async def wait_for(base: str) -> None:
    """Return once a server answers."""
    target = parse_target(base)
    for _ in range(600):
        try:
            connection = await connect(target)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        await connection.exchange(target.request("GET", "metadata"))
        connection.close()
        return
    raise TimeoutError(base)


async def list_reads(base: str, id: str) -> list[str]:
    """Resources in the compartment of a patient."""
    target = parse_target(base)
    connection = await connect(target)
    paths: list[str] = [f"Patient/{id}"]
    for type in ("Observation", "Encounter", "Condition", "Procedure", "Claim"):
        answer = await connection.exchange(target.request("GET", f"{type}?patient=Patient/{id}&_count=200"))
        entries = json.loads(answer.body).get("entry", ())
        paths += [f"{type}/{entry['resource']['id']}" for entry in entries]
    connection.close()
    return paths[:READ]


async def ask(server: Server, token: str, paths: Sequence[str]) -> float:
    """Microseconds of processor time a request. Raises ValueError for an answer that is no 200."""
    target = parse_target(server.base, [f"Authorization: Bearer {token}"] if token else [])
    connections = [await connect(target) for _ in range(CONNECTIONS)]

    async def work(connection: Connection, own: Sequence[str]) -> None:
        for path in own:
            answer = await connection.exchange(target.request("GET", path))
            if answer.status != 200:
                raise ValueError(f"{path}: {answer.status} {answer.body[:500]!r}")

    before = server.read_time()
    await asyncio.gather(*(work(each, paths[number::CONNECTIONS]) for number, each in enumerate(connections)))
    # the audit's events of the last second are a part of it
    await asyncio.sleep(1.2)
    spent = server.read_time() - before
    for each in connections:
        each.close()
    return spent / len(paths) * 1e6


def sign_token(issuer: str, audience: str, scope: str, patient: str = "") -> str:
    """A JWT access token of the issuer, good for an hour."""
    claims = {"iss": issuer, "aud": audience, "sub": "quill", "exp": int(time.time()) + 3600, "client_id": "app"}
    claims |= {"scope": scope, **({"patient": patient} if patient else {})}
    return jwt.encode({"alg": "RS256", "kid": "one", "typ": "at+jwt"}, claims, KEY, algorithms=["RS256"])


async def find_patient(base: str) -> str:
    """The patient with the most Observations among the first ones."""
    target = parse_target(base)
    connection = await connect(target)
    answer = await connection.exchange(target.request("GET", "Patient?_count=50"))
    counts: dict[str, int] = {}
    for entry in json.loads(answer.body)["entry"]:
        id = entry["resource"]["id"]
        query = f"Observation?patient=Patient/{id}&_summary=count"
        counts[id] = json.loads((await connection.exchange(target.request("GET", query))).body)["total"]
    connection.close()
    return max(counts, key=lambda id: counts[id])


async def measure_phase(
    open_to_all: Server, guarded: Server, tokens: dict[str, str], paths: Sequence[str], turns: int
) -> dict[str, tuple[float, float, float]]:
    """Kind of token → (ratio, µs without, µs with)."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in tokens}
    await ask(open_to_all, "", paths)
    for token in tokens.values():
        await ask(guarded, token, paths)
    for _ in range(turns):
        for name, token in tokens.items():
            times[name].append((await ask(open_to_all, "", paths), await ask(guarded, token, paths)))
    return {
        name: (
            statistics.median(without / having for without, having in pairs),
            statistics.median(without for without, _ in pairs),
            statistics.median(having for _, having in pairs),
        )
        for name, pairs in times.items()
    }


async def main(source: Path, turns: int) -> None:
    """Load the folder, start both servers, and print a line for each kind of request and of token."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("load", str(source), "--store", f"sqlite:///{folder}/open.db")
        shutil.copy(folder / "open.db", folder / "guarded.db")
        async with publish_keys() as issuer, serve(folder, "open") as open_to_all:
            patient = await find_patient(open_to_all.base)
            tokens = make_tokens(folder, issuer, patient)
            settings = {"authentication": "on", "audit_folder": str(folder / "audit"), "issuers": issuer}
            async with serve(folder, "guarded", **settings, audience="here") as guarded:
                reads = await list_reads(open_to_all.base, patient)
                searches = [each.format(id=patient) for each in SEARCHES]
                rng = random.Random(1)
                for phase, paths in (("read", reads), ("search", searches)):
                    chosen = rng.choices(paths, k=REQUESTS[phase])
                    found = await measure_phase(open_to_all, guarded, tokens, chosen, turns)
                    for kind, (ratio, without, having) in found.items():
                        print(f"{phase:8} {kind:20} {ratio:6.2f}   {without:7.1f} µs without {having:7.1f} µs with")


def make_tokens(folder: Path, issuer: str, patient: str) -> dict[str, str]:
    """A token of each kind: of this store and of the issuer, for a system and for one patient."""

    def create(name: str, *options: str) -> str:
        store = ("--store", f"sqlite:///{folder}/guarded.db")
        return run("token", "create", *store, "--name", name, *options).split()[0]

    return {
        "own token, system": create("system", "--scope", "system/*.rs"),
        "own token, patient": create("patient", "--scope", "patient/*.rs", "--patient", patient),
        "JWT, system": sign_token(issuer, "here", "system/*.rs"),
        "JWT, patient": sign_token(issuer, "here", "patient/*.rs", patient),
    }


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5))
