"""A headless Chromium for tests, driven over a pipe; only the browser must be installed."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of the browser, or None."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """One page in its own browser; a context manager.

    problems: messages of the page's console about errors and refused content.
    """

    def __init__(self, profile: Path, *, width: int = 1280, height: int = 800) -> None:
        self._profile = profile
        self._size = (width, height)
        self._numbers = itertools.count(1)
        self._unread = b""
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        there, to_browser = os.pipe()
        from_browser, here = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there, here)]  # away from 3 and 4
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash"),  # it reads from 3 and writes to 4
                *(CHROMIUM, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._profile}", "about:blank"),
            ],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (there, here, *ends):
            os.close(end)
        self._writer, self._reader = to_browser, from_browser
        target = next(item for item in self.call("Target.getTargets")["targetInfos"] if item["type"] == "page")
        self._session: str | None = None
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*self._size)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._writer)
        os.close(self._reader)

    def resize(self, width: int, height: int) -> None:
        """Make the page this large, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return what JavaScript gives, waiting for a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 90.0) -> Any:
        """Return what JavaScript gives as soon as that is true; fails after some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.evaluate(script)
            except AssertionError:  # the page is only just loading
                value = None
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"the page did not come to {script!r} in {seconds:g} s")

    def press(self, key: str) -> None:
        """Press and release a key, such as ``h``, ``Enter`` or ``Escape``."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}.get(key, ord(key[0].upper()))
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """Write a screenshot, as JPEG or PNG by the name's ending."""
        kind = {"format": "png"} if path.suffix == ".png" else {"format": "jpeg", "quality": 88}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **kind)["data"]))

    def call(self, method: str, **parameters: Any) -> Any:
        """Give a command of the Chrome DevTools Protocol, and return its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if getattr(self, "_session", None) is not None:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> Any:
        while b"\0" not in self._unread:
            piece = os.read(self._reader, 1 << 20)
            if not piece:
                raise AssertionError("the browser ended")
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(
                event["params"]["exceptionDetails"].get("exception", {}).get("description", "exception")
            )
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.problems.append(event["params"]["entry"]["text"])
