"""The page in a real browser: headless Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium import webdriver

from analysis.pages.report import write_report
from analysis.tables.frames import Runs
from tests.support.browser import NARROW, SMALLEST_TEXT, WIDE, ask, barriers, log, needs_browser, show, unfold
from tests.support.stored_runs import sweep, write_runs

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep with two seeds, on a device with a long name."""
    root = tmp_path_factory.mktemp("report")
    store, ids = write_runs(root / "runs", *sweep(), *sweep(seed=2))
    return write_report(Runs.read(store, ids), root / "out", source=store.root)


def test_no_console_message_and_no_outside_request(driver: webdriver.Chrome, page: Path) -> None:
    """The browser logs nothing, and asks for the page alone."""
    log(driver, "browser")
    log(driver, "performance")
    show(driver, page, width=WIDE)
    assert log(driver, "browser") == []
    events = [json.loads(entry["message"])["message"] for entry in log(driver, "performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_does_not_scroll_sideways(driver: webdriver.Chrome, page: Path, width: int) -> None:
    """The page is as wide as the window; what is wider scrolls in its own container."""
    show(driver, page, width=width)
    assert ask(driver, "return window.innerWidth") == width
    content, room = ask(driver, "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]")
    assert content <= room


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_figures_are_there_and_legible(driver: webdriver.Chrome, page: Path, width: int) -> None:
    """Every figure has a size, fits its room, and has text of at least nine pixels."""
    show(driver, page, width=width)
    sizes = ask(
        driver,
        """
        return [...document.querySelectorAll('figure svg')].map(svg => {
            const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
            const size = one => parseFloat(getComputedStyle(one).fontSize) * scale;
            const text = [...svg.querySelectorAll('text')].map(size);
            const room = svg.closest('.plot');
            const scrolls = room.scrollWidth > room.clientWidth, smallest = Math.min(...text);
            return {scrolls, width: box.width, height: box.height, count: text.length, smallest};
        })
        """,
    )
    assert len(sizes) >= 4
    for size in sizes:
        assert not size["scrolls"]
        assert size["width"] > 300
        assert size["height"] > 100
        assert size["count"] > 5
        assert size["smallest"] >= SMALLEST_TEXT


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_words_in_a_figure_do_not_overlap(driver: webdriver.Chrome, page: Path, width: int) -> None:
    """No two texts of a figure share more than a sliver of room, in the browser's own font."""
    show(driver, page, width=width)
    overlaps = ask(
        driver,
        """
        const found = [];
        for (const svg of document.querySelectorAll('figure svg')) {
            const texts = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
            texts.forEach(([a, one], i) => texts.slice(i + 1).forEach(([b, other]) => {
                const x = Math.min(one.right, other.right) - Math.max(one.left, other.left);
                const y = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
                if (x > 1 && y > Math.min(one.height, other.height) / 2.5) found.push([a, b, x, y]);
            }));
        }
        return found
        """,
    )
    assert overlaps == []


def test_dark_mode_reaches_into_the_figures(driver: webdriver.Chrome, page: Path) -> None:
    """In dark mode the ground is dark and a figure's text light; in light mode the other way round."""
    script = """
        const light = text => text.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765;
        return [light(getComputedStyle(document.body).backgroundColor),
                light(getComputedStyle(document.querySelector('figure svg text')).fill),
                light(getComputedStyle(document.querySelector('figure svg path')).fill)]
    """
    show(driver, page, width=WIDE, scheme="dark")
    ground, text, figure = ask(driver, script)
    assert ground < 0.2 < 0.8 < text
    assert figure < 0.2
    show(driver, page, width=WIDE, scheme="light")
    ground, text, figure = ask(driver, script)
    assert text < 0.2 < 0.8 < ground
    assert figure > 0.9


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(driver: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    """axe-core finds no serious barrier, with everything that unfolds unfolded."""
    show(driver, page, width=width, scheme=scheme)
    unfold(driver)
    assert barriers(driver) == []
