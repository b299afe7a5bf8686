"""Chromium as a person uses it: pages are opened, keys are pressed (https://chromedevtools.github.io/devtools-protocol/).

It speaks over a pipe, so that nothing but the standard library is needed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Space": (" ", 32, " "), "Down": ("ArrowDown", 40, "")}
"""Name → what the browser calls it, its number, and the text that it makes."""
_SECONDS = 60


class Browser:
    """One page in a browser of its own."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._read, self._number, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], _SECONDS)
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser has ended"
            self._read += part
        text, _, self._read = self._read.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def open(self, url: str) -> None:
        """Go to a URL."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; None while it is being loaded."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression as soon as it is neither false nor empty."""
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            value = self.evaluate(f"document.readyState === 'complete' && ({expression})")
            if value not in (None, False, ""):  # an element is an empty object
                return value
            time.sleep(0.05)
        raise AssertionError(f"{expression} never came: {self.evaluate('document.documentElement.outerHTML')}")

    def press(self, *names: str) -> None:
        """Press keys, one after the other."""
        for name in names:
            key, number, text = _KEYS[name]
            parameters = {"key": key, "code": name, "windowsVirtualKeyCode": number}
            self.call("Input.dispatchKeyEvent", type="keyDown", **parameters, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def press_until(self, key: str, is_there: str, most: int = 30) -> None:
        """Press a key until the element with the focus is the one of a selector."""
        for _ in range(most):
            if self.evaluate(f"document.activeElement !== null && document.activeElement.matches({is_there!r})"):
                return
            self.press(key)
        raise AssertionError(f"the focus never came to {is_there}")

    def follow(self, act: Callable[[], None], expression: str) -> Any:
        """Do something that leads to another page, and wait for an expression of that page."""
        self.evaluate("window.isOld = true")
        act()
        return self.wait_for(f"window.isOld !== true && ({expression})")


@contextmanager
def open_browser(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended at the end."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    line = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    command = ("bash", "-c", line, "bash", program, *OPTIONS, f"--user-data-dir={folder}")
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_out)
        os.close(ours_in)
