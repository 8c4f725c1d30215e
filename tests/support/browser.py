"""Headless Chromium for the tests of pages: how it is started, and what it is asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, NARROW = 1280, 390
SMALLEST_TEXT = 9  # CSS pixels

needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs Chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)",
)


def started(profile: Path) -> webdriver.Chrome:
    """A browser with a fresh profile, its console and network logs on."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def show(driver: webdriver.Chrome, page: Path, *, width: int, scheme: str = "light") -> None:
    """Open the page in a window of that width, in light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.as_uri())


def ask(driver: webdriver.Chrome, script: str) -> Any:
    """The value of a script's `return`."""
    return driver.execute_script(script)


def unfold(driver: webdriver.Chrome) -> None:
    """Open everything that unfolds."""
    ask(driver, "document.querySelectorAll('details').forEach(one => one.open = true)")


def barriers(driver: webdriver.Chrome) -> list[str]:
    """What axe-core calls a serious or critical barrier on the open page: rule, and the places it names."""
    found = Axe().run(driver)["violations"]
    return [
        f"{one['id']}: {node['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def log(driver: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """The entries of a browser log since it was last read."""
    entries: list[dict[str, Any]] = driver.get_log(kind)
    return entries
