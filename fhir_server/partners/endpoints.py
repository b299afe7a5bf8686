"""How a partner is reached: the table `transports` of its file, one table for each transport (docs/partners.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from fhir_server.partners.section import Section, Text
from fhir_server.transports.http_headers import read_headers

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class FolderEndpoint(Section):
    """Where files come in and go out. All four are absolute paths; those of one partner on one file system."""

    incoming: Text | None = Field(None, alias="in")
    done: Text | None = None
    failed: Text | None = None
    out: Text | None = None
    suffix: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9]{1,10}$")] = ".txt"
    quiet_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0

    @field_validator("incoming", "done", "failed", "out")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError("Write the whole path, from the root on.")
        return path

    @model_validator(mode="after")
    def _complete(self) -> FolderEndpoint:
        if self.incoming is None and self.out is None:
            raise ValueError("Name the folder `in`, the folder `out`, or both.")
        if self.incoming is not None and (self.done is None or self.failed is None):
            raise ValueError("The folder `in` needs the folders `done` and `failed`, into which files are moved.")
        paths = [path for path in (self.incoming, self.done, self.failed, self.out) if path is not None]
        if len(set(paths)) < len(paths):
            raise ValueError("Each of the folders needs a path of its own.")
        return self

    def to_endpoint(self) -> dict[str, str]:
        """The keys that `transports/folder.py` takes."""
        paths = {"in": self.incoming, "done": self.done, "failed": self.failed, "out": self.out}
        return {**{key: path for key, path in paths.items() if path is not None}, "suffix": self.suffix}


class TlsFiles(Section):
    """The files (PEM) of TLS to a partner: what it is checked by, and our certificate where it wants one."""

    authorities: Text | None = None
    certificate: Text | None = None
    key: Text | None = None

    @field_validator("authorities", "certificate", "key")
    @classmethod
    def _there(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError("Write the whole path, from the root on.")
        if path is not None and not Path(path).is_file():
            raise ValueError("There is no such file.")
        return path

    @model_validator(mode="after")
    def _has_certificate(self) -> TlsFiles:
        if self.key is not None and self.certificate is None:
            raise ValueError("The `key` needs the `certificate` that it belongs to.")
        return self

    def list_files(self) -> dict[str, str]:
        """The keys that `transports/client_tls.py` takes."""
        files = {"authorities": self.authorities, "certificate": self.certificate, "key": self.key}
        return {name: path for name, path in files.items() if path is not None}


class MllpEndpoint(TlsFiles):
    """A listener of the partner. `seconds`: the longest wait for an acknowledgement."""

    host: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: bool = False
    seconds: Annotated[float, Field(gt=0, le=600)] = 30.0

    @model_validator(mode="after")
    def _speaks_tls(self) -> MllpEndpoint:
        if self.list_files() and not self.tls:
            raise ValueError("`authorities`, `certificate` and `key` are of TLS: say `tls = true`, or leave them out.")
        return self

    def to_endpoint(self) -> dict[str, str]:
        """The keys that `transports/mllp_client.py` takes."""
        tls = {"tls": "yes", **self.list_files()} if self.tls else {}
        return {"host": self.host, "port": str(self.port), "seconds": str(self.seconds), **tls}


class HttpEndpoint(TlsFiles):
    """An address of the partner that takes messages by POST. `seconds`: the longest wait for an acknowledgement.

    `token_file`, `headers_file`: files with a bearer token and with lines `Name: value`, by which we say who we are.
    """

    url: Text
    seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    token_file: Text | None = None
    headers_file: Text | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("Write a whole address that begins with `http://` or `https://`.")
        return url

    @field_validator("token_file", "headers_file")
    @classmethod
    def _whole(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            raise ValueError("Write the whole path, from the root on.")
        return path

    @model_validator(mode="after")
    def _keeps_secrets(self) -> HttpEndpoint:
        files = self._list_secrets()
        read_headers(files)
        parts = urlsplit(self.url)
        if files and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ValueError("A token or headers go by `https://` alone, or to this machine itself.")
        return self

    def _list_secrets(self) -> dict[str, str]:
        files = {"token_file": self.token_file, "headers_file": self.headers_file}
        return {name: path for name, path in files.items() if path is not None}

    def to_endpoint(self) -> dict[str, str]:
        """The keys that `transports/http.py` takes."""
        return {"url": self.url, "seconds": str(self.seconds), **self.list_files(), **self._list_secrets()}


class Transports(Section):
    """How the partner is reached: a table for each transport."""

    folder: FolderEndpoint | None = None
    mllp: MllpEndpoint | None = None
    http: HttpEndpoint | None = None

    def find_endpoint(self, name: str, sends: bool = False) -> dict[str, str] | None:
        """What the transport of a name takes; None where the partner does not have it.

        `sends`: None too where it only receives.
        """
        section = getattr(self, name) if name in type(self).model_fields else None
        if section is None or (sends and section is self.folder and self.folder.out is None):
            return None
        return dict(section.to_endpoint())
