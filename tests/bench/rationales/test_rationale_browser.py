"""The rationales page in a real browser: wide and narrow, light and dark, by keyboard."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from analysis.rationales.overview import write_overview
from analysis.rationales.page import write_page
from bench.rationales import metrics as rationale_metrics
from bench.rationales.overview import pool_comparisons
from tests.support.browser import NARROW, SMALLEST_TEXT, WIDE, ask, barriers, log, needs_browser, show, unfold

pytestmark = needs_browser

METHODS = ("adapler", "saliency", "random")
LAYERS = 3


def rows(generator: np.random.Generator) -> pd.DataFrame:
    """Twelve documents of different lengths, every method and layer."""
    found = []
    for number in range(12):
        size = 20 + 7 * number
        for method in METHODS:
            for layer in range(LAYERS):
                predicted = int(generator.integers(1, size))
                both = int(generator.integers(0, min(predicted, 4) + 1))
                values = dict.fromkeys(("average_precision", "auprc", "fpr"), generator.random())
                tokens = {"n_tokens": size, "n_rationale": 5, "token_gold": 5, "token_predicted": predicted}
                spans = {"span_gold": 2, "span_predicted": 3, "reached_0": int(generator.integers(0, 3))}
                known = {"method": method, "layer": layer, "annotation_id": f"review-{number}", "label": "POS"}
                found.append({**known, "predicted": "NEG", **values, **tokens, "token_both": both, **spans})
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def rationales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a made-up comparison, with a token that is HTML and one that is very long."""
    folder = tmp_path_factory.mktemp("rationales")
    documents = rows(np.random.default_rng(0))
    table = rationale_metrics.metrics_table([documents], against="adapler", resamples=50)
    words = [
        {"method": method, "layer": layer, "part": "noun", "word": word, "unmarked": 9, "selected": 3}
        for method in METHODS
        for layer in range(LAYERS)
        for word in ("film", "<script>alert(1)</script>")
    ]
    for name, frame in (("documents", documents), ("table", table), ("words", pd.DataFrame(words))):
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    texts = []
    for number in range(12):
        tokens = [f"word{place}" for place in range(20 + 7 * number)]
        tokens[1], tokens[2] = "<script>alert(1)</script>", "w" * 300
        selected = {method: {str(layer): [[0, 2], [4, 6]] for layer in range(LAYERS)} for method in METHODS}
        line = {"annotation_id": f"review-{number}", "label": "POS", "tokens": tokens, "marked": [[1, 6]]}
        texts.append(json.dumps({**line, "selected": selected}))
    (folder / "shown.jsonl").write_text("\n".join(texts), encoding="utf8")
    summary = {
        **{
            "task": "movies",
            "source": "made up",
            "synthetic": False,
            "sensitive": False,
            "split": "val",
            "documents": 12,
            "tokens": 702,
        },
        **{"marked": 60, "methods": dict.fromkeys(METHODS, "a method"), "controls": ["random"], "layers": LAYERS},
        **{
            "kept": [0.5, 0.4, 0.3],
            "pooling": "mean",
            "accuracy": {"fine-tuned": 0.9},
            "seeds": [0],
            "finetune_seeds": [0],
            "speedup": 2.0,
            "resamples": 50,
        },
        **{
            "environment": {"device_name": "a processor"},
            "backbone": "tiny",
            "preset": "quick",
            "knobs": {"gamma": 0.1},
        },
        "metrics": {name: ["what it says", True] for name in table["metric"].unique()},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf8")
    return write_page(folder)


@pytest.fixture(scope="module", params=["one", "several"])
def page(request: pytest.FixtureRequest, rationales: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one comparison, and that of two operating points."""
    if request.param == "one":
        return rationales
    out = tmp_path_factory.mktemp("points")
    folders = [out / f"gamma-{gamma}" for gamma in (0.1, 0.2)]
    for number, folder in enumerate(folders, start=1):
        shutil.copytree(rationales.parent, folder)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf8"))
        own = {"knobs": {"gamma": number / 10}, "speedup": 1.5 * number}
        (folder / "summary.json").write_text(json.dumps(summary | own), encoding="utf8")
    pool_comparisons(folders, out)
    return write_overview(out, out)


def test_nothing_is_logged_or_asked_for(driver: webdriver.Chrome, page: Path) -> None:
    """The script is allowed to run, no text runs as one, and nothing outside is asked for."""
    log(driver, "browser")
    log(driver, "performance")
    show(driver, page, width=WIDE)
    assert log(driver, "browser") == []
    events = [json.loads(entry["message"])["message"] for entry in log(driver, "performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert ask(driver, "return document.querySelectorAll('script:not(#sort)').length") == 0


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits(driver: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    """With every document open the page does not scroll sideways, and figures and words are legible."""
    show(driver, page, width=width, scheme=scheme)
    unfold(driver)
    content, room = ask(driver, "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]")
    assert content <= room
    smallest = ask(
        driver,
        """
        return Math.min(...[...document.querySelectorAll('figure svg')].flatMap(svg => {
            const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            return [...svg.querySelectorAll('text')].map(one => parseFloat(getComputedStyle(one).fontSize) * scale);
        }))
        """,
    )
    assert smallest >= SMALLEST_TEXT


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_are_told_apart_without_colour(
    driver: webdriver.Chrome,
    rationales: Path,
    scheme: str,
) -> None:
    """Hits, false positives and misses differ in line, border or weight, and name themselves to a screen reader."""
    show(driver, rationales, width=WIDE, scheme=scheme)
    script = """
        return ['hit', 'false', 'missed'].map(kind => {
            const style = getComputedStyle(document.querySelector('.panel mark.' + kind));
            return [style.textDecorationStyle, style.borderTopStyle, style.fontWeight,
                    document.querySelector('.panel mark.' + kind + ' .sr').textContent];
        })
    """
    unfold(driver)
    looks = [tuple(look) for look in ask(driver, script)]
    assert len({look[:3] for look in looks}) == 3
    assert len({look[3] for look in looks}) == 3


def test_documents_are_sorted_by_keyboard(driver: webdriver.Chrome, rationales: Path) -> None:
    """Most errors come first; a button reached by keyboard sorts anew, says so and stays pressed."""
    show(driver, rationales, width=WIDE)
    errors = "return [...document.querySelectorAll('#documents > li')].map(one => Number(one.dataset.error))"
    lengths = errors.replace("error)", "tokens)")
    first = ask(driver, errors)
    assert first == sorted(first, reverse=True)
    assert len(set(first)) > 1
    button = driver.find_element(By.CSS_SELECTOR, "[data-sort=tokens]")
    button.send_keys(Keys.ENTER)
    assert ask(driver, lengths) == sorted(ask(driver, lengths), reverse=True)
    assert button.get_attribute("aria-pressed") == "true"
    assert ask(driver, "return document.querySelectorAll('[aria-pressed=true]').length") == 1
    assert "longest first" in ask(driver, "return document.getElementById('sorted').textContent")


def test_text_that_is_html_shows_as_text(driver: webdriver.Chrome, rationales: Path) -> None:
    """A token and a word that are a script stand on the page letter by letter."""
    show(driver, rationales, width=WIDE)
    unfold(driver)
    assert "<script>alert(1)</script>" in ask(driver, "return document.querySelector('.panel').innerText")
    assert "<script>alert(1)</script>" in ask(driver, "return document.getElementById('words').innerText")


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(driver: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    """axe-core finds no serious barrier, with everything that unfolds unfolded."""
    show(driver, page, width=width, scheme=scheme)
    unfold(driver)
    assert barriers(driver) == []


def test_a_barrier_is_found(driver: webdriver.Chrome, tmp_path: Path) -> None:
    """A button without a name is reported, so that an empty report means something."""
    page = tmp_path / "page.html"
    page.write_text('<html lang="en"><title>page</title><main><button></button></main></html>', encoding="utf8")
    show(driver, page, width=WIDE)
    (found,) = barriers(driver)
    assert found.startswith("button-name")
