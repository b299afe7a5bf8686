"""TLS of what listens: a certificate and its key, read again when their files change, and at SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HANDSHAKE_SECONDS = 20.0
"""Seconds for a TLS handshake; a connection that takes longer is closed."""


def make_tls_context(certificate: Path | None, key: Path | None, authorities: Path | None) -> ssl.SSLContext | None:
    """TLS for a listener; None without a certificate. Raises ValueError for what cannot be loaded."""
    if certificate is None:
        if key is not None or authorities is not None:
            raise ValueError("`--key` and `--authorities` need `--certificate`.")
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(certificate, key)
        if authorities is not None:
            tls.load_verify_locations(authorities)
            tls.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"The certificate, key or authorities cannot be loaded: {error}.") from None
    return tls


RELOAD_SIGNAL = signal.SIGHUP


class CertificateWatch:
    """Loads a certificate and its key again once one of their files has changed; new connections then have them."""

    def __init__(self, tls: ssl.SSLContext, files: tuple[str, str | None], warn: Callable[[str], None]) -> None:
        self._tls, self._files, self._warn = tls, files, warn
        self._state = self._read_state()

    def check(self) -> None:
        """Look once. What cannot be loaded is told, and the certificate before stays in use."""
        state = self._read_state()
        if state != self._state:
            self.reload()

    def reload_at_signal(self) -> None:
        """Load the files again whenever the process of this event loop gets RELOAD_SIGNAL, and now.

        Now, because they were loaded before the process was ready for the signal, or even in the process it came from.
        """
        asyncio.get_running_loop().add_signal_handler(RELOAD_SIGNAL, self.reload)
        self.reload()

    def reload(self) -> None:
        """Load the files, changed or not; see `check`."""
        self._state = self._read_state()
        try:
            # tried on another context first: a certificate without its key would leave this one with neither
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._files)
            self._tls.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            self._warn(f"The changed certificate cannot be loaded, so the one before stays in use: {error}.")

    def _read_state(self) -> tuple[tuple[int, int], ...]:
        """Time and size of each file; of one that is missing, nothing."""
        states = []
        for file in filter(None, self._files):
            with suppress(OSError):
                found = os.stat(file)
                states.append((found.st_mtime_ns, found.st_size))
        return tuple(states)
