"""Headless Chromium through its own driver, which speaks plain HTTP (the W3C's WebDriver)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ARGUMENTS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def programs() -> tuple[str, str] | None:
    """Paths of Chromium and of its driver; None where either lacks."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """A window; use as a context manager. ``more`` are further arguments of Chromium."""

    def __init__(self, browser: str, driver: str, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.at = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        arguments = [*ARGUMENTS, *more, *(["--no-sandbox"] if os.getuid() == 0 else [])]
        options = {
            "goog:chromeOptions": {"binary": browser, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        try:
            self._wait()
            wanted = {"capabilities": {"alwaysMatch": options}}
            self.session = f"/session/{self._send('/session', wanted)['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                if self._send("/status")["ready"]:
                    return
            except (OSError, KeyError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def _send(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.at + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:2000]) from error

    def open(self, address: str) -> None:
        self._send(f"{self.session}/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self._send(
            f"{self.session}/execute/sync", {"script": script, "args": list(arguments)}
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._send(f"{self.session}/goog/cdp/execute", body)

    def scheme(self, name: str) -> None:
        """``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def size(self, width: int, height: int) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def shoot(self, path: Path, *, whole: bool = False) -> Path:
        """A screenshot as PNG."""
        data = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(data["data"]))
        return path

    def console(self) -> list[dict[str, Any]]:
        """What the page has logged since the last call."""
        return list(self._send(f"{self.session}/se/log", {"type": "browser"}))

    def requests(self) -> list[str]:
        """Addresses that the page has asked for since the last call."""
        entries = self._send(f"{self.session}/se/log", {"type": "performance"})
        messages = [json.loads(e["message"])["message"] for e in entries]
        return [
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        ]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._send(self.session, method="DELETE")
        finally:
            self.process.terminate()
            self.process.wait(10)
