"""The book in a browser: what the rendered pages show and fetch, and notebooks that run in JupyterLab.

The browser is the Chromium of this machine, or the program that TR_CHROMIUM names.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import nbformat
import pytest

from tinyredux.course import book

pytestmark = pytest.mark.slow
NOTEBOOKS = book.notebooks()
NAMES = ("chromium", "chromium-browser", "google-chrome")
SITE_BYTES = 12_000_000
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SETTINGS = {  # of JupyterLab: no question about news over the page, and all cells in it at once, to be found without scrolling
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
SLIDER = 'input[type="range"]'
SECONDS = 120  # for a page, a kernel or a cell

# Code, tables and pictures that are wider than the box around them or than the column of text; a cell tagged `full-width` may be
# as wide as the window.
CUT = """async () => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  if (window.MathJax?.startup) await window.MathJax.startup.promise;
  const article = document.querySelector(".bd-article-container"), cut = [];
  const boxes = "pre, table, img, .output, .pst-scrollable-table-container, mjx-container[display]";
  for (const each of article.querySelectorAll(boxes)) {
    const box = each.getBoundingClientRect();
    const limit = each.closest(".full-width, .tag_full-width") ? innerWidth : article.getBoundingClientRect().right;
    const scrolls = getComputedStyle(each).overflowX != "visible" && each.scrollWidth > each.clientWidth + 1;
    if (box.width && (scrolls || box.right > limit + 1))
      cut.push(each.tagName.toLowerCase() + ": " + (each.alt || each.textContent).trim().replace(/\\s+/g, " ").slice(0, 60));
  }
  return cut;
}"""

# What is painted behind an element, from itself outwards.
GROUNDS = """element => {
  const found = [];
  for (let each = element; each; each = each.parentElement) found.push(getComputedStyle(each).backgroundColor);
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered book."""
    pytest.importorskip("sphinx_book_theme")
    return book.render(tmp_path_factory.mktemp("book") / "html").parent


@pytest.fixture(scope="module")
def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("TR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("Chromium is missing; install the package `chromium`, or name a program like it in TR_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport=DESK)
    opened.set_default_timeout(1000 * SECONDS)
    yield opened
    opened.close()


def test_html_needs_no_network(site: Path, pages: list[Path]) -> None:
    notebooks = {path.relative_to(book.BOOK).with_suffix(".html") for path in NOTEBOOKS}
    assert notebooks < {page.relative_to(site) for page in pages}
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//", text), page
        assert not re.search(r"<link[^>]*rel=\"(?:stylesheet|preload)\"[^>]*href=\"(?:https?:)?//", text), page
    told = [
        page
        for page in pages
        if 'alt="Accumulators -40 to 40, requantised: rounding twice differs at 6 of 81."' in page.read_text()
    ]
    assert len(told) == 1
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) <= SITE_BYTES


def test_every_link_inside_the_book_leads_somewhere(pages: list[Path]) -> None:
    for page in pages:
        for link in re.findall(r"<a\b[^>]*\shref=\"([^\"]+)\"", page.read_text()):
            where, fragment = urldefrag(html.unescape(link))
            if re.match(r"[a-z]+:", where):
                continue
            target = (page.parent / unquote(where)).resolve() if where else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not fragment or f'id="{fragment}"' in target.read_text(), f"{page.name}: {link}"


def test_nothing_is_cut_off_and_nothing_is_fetched(site: Path, pages: list[Path], page: Any) -> None:
    """At 1280 px no cell, table, picture or formula is cut off; at a phone's width no page scrolls sideways."""
    faults: list[str] = []
    page.on(
        "request", lambda request: request.url.startswith((site.as_uri(), "data:")) or faults.append(f"fetches {request.url}")
    )
    page.on("requestfailed", lambda request: faults.append(f"lacks {request.url}"))
    page.on("pageerror", lambda error: faults.append(f"error {error}"))
    for path in pages:
        page.set_viewport_size(DESK)
        page.goto(path.as_uri())
        faults += [f"{path.relative_to(site)} cuts off {what}" for what in page.evaluate(CUT)]
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        faults += [f"{path.relative_to(site)} is {width} px wide on a phone"] * (width > PHONE["width"])
    assert not faults, "\n".join(faults)


def test_search_finds_a_word(site: Path, page: Any) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator(".search-button__button:visible, .search-button:visible").first.click()
    page.locator("input[type=search]:visible").first.fill("pigeon")
    page.keyboard.press("Enter")
    page.locator("#search-results li a").first.click()
    page.wait_for_load_state()
    assert "search.html" not in page.url and "pigeon" in page.locator("article").inner_text().lower()


def test_dark_mode_switches(site: Path, page: Any) -> None:
    """The page and its pictures: dark ink on a light page, light ink on a dark one."""
    page.goto((site / "index.html").as_uri())
    seen = {}
    for mode in ("Light", "Dark"):
        page.locator(".theme-switch-button:visible").first.click()
        page.locator(".theme-change-button:visible", has_text=mode).click()
        grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[mode] = max(map(int, re.findall(r"\d+", grounds)[:3]))
    assert seen["Dark"] < 80 < 240 < seen["Light"]
    assert "invert" in page.evaluate("getComputedStyle(document.querySelector('.bd-article img[src$=\".svg\"]')).filter")
    for chapter, turned in {"06_partial_execution": True, "08_redundancy": False}.items():
        page.goto((site / f"{chapter}.html").as_uri())
        drawing = page.locator("figure.flipbook img").first
        filtered = drawing.evaluate("image => getComputedStyle(image).filter")
        assert ("invert" in filtered) == turned, "light ink on the page itself; a photograph lies on its own paper"
        grounds = page.locator("figure.flipbook").first.evaluate(GROUNDS)
        assert len(grounds) > 5 and all(max(map(int, re.findall(r"\d+", ground)[:3])) < 80 for ground in grounds), grounds


def test_sliders_of_the_pages_move(pages: list[Path], page: Any) -> None:
    """No kernel runs behind a page: its pictures are prepared. Six chapters have one."""
    found = [path for path in pages if has_slider(path)]
    assert len(found) >= 6
    for path in found:
        page.goto(path.as_uri())
        move_sliders(page)


def move_sliders(page: Any) -> None:
    """Moves each slider of a page from one end to the other: a picture of its cell changes."""
    sliders = page.locator(f"{SLIDER}:visible, .widget-slider [role=slider]:visible")
    sliders.first.wait_for()
    for slider in sliders.all():
        pictures = slider.locator("xpath=ancestor::*[contains(@class, 'jp-Cell') or contains(@class, 'cell ')][1]").locator("img")
        slider.press("Home")
        at_home = shown(pictures)
        slider.press("End")
        wait_for(lambda pictures=pictures, at_home=at_home: shown(pictures) != at_home, "another picture")


def has_slider(path: Path) -> bool:
    """Returns whether a page or a notebook has an input of HTML that slides, or a slider of ipywidgets."""
    return bool(re.search(r"<input type=\\?[\"']range|jupyter\.widget-view|\.live\(", path.read_text()))


def shown(pictures: Any) -> list[str]:
    return [picture.get_attribute("src") for picture in pictures.all()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab on a copy of the book, with SETTINGS alone: its address and the folder."""
    pytest.importorskip("jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(book.BOOK, home / "book")
    for name, setting in SETTINGS.items():
        path = home / "config" / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        str(home / "book"),
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
    ]
    command += [f"--ServerApp.port={address.rpartition(':')[2]}", "--ServerApp.port_retries=0"]
    own = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own, "IPYTHONDIR": str(home)}, stdout=log, stderr=log)
    try:
        wait_for(lambda: server.poll() is not None or answers(f"{address}/api"), "JupyterLab to start")
        assert server.poll() is None, (home / "log").read_text()
        yield address, home / "book"
    finally:
        server.terminate()
        server.wait(SECONDS)


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=SECONDS).read())
    except OSError:
        return False


def wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.1)


def open_and_run(page: Any, lab: tuple[str, Path], name: str) -> None:
    """Opens a notebook of the folder and runs all its cells by the menu."""
    page.goto(f"{lab[0]}/lab/tree/{name}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
    choose(page, "Edit", "Clear Outputs of All Cells")
    choose(page, "Run", "Run All Cells")


def choose(page: Any, menu: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
    page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()


def saved_cells(page: Any, path: Path) -> list[Any]:
    """Returns the code cells of a notebook that runs in the page, saved when the last one has run."""
    cells: list[Any] = []

    def have_run() -> bool:
        page.keyboard.press("Control+s")
        time.sleep(0.3)
        with contextlib.suppress(ValueError):  # half of it is written
            notebook = nbformat.read(path, as_version=4)
            cells[:] = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
        return bool(cells) and all(cell.execution_count for cell in cells)

    wait_for(have_run, f"the cells of {path.name}")
    return cells


def test_a_chapter_runs_in_jupyterlab(lab: tuple[str, Path], page: Any) -> None:
    """Of the first that has sliders: its imports, its slider, which moves, and its exercise, whose answer is checked; nbval runs
    the cells between."""
    chapter = nbformat.read(next(filter(has_slider, NOTEBOOKS)), as_version=4)
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    (slider,), (exercise,) = (
        [cell for cell in code if words in cell.source] for words in ("widgets.", 'check("lab1.round_shift')
    )
    chapter.cells = [*code[:2], slider, exercise]
    nbformat.write(chapter, lab[1] / "cut.ipynb")
    open_and_run(page, lab, "cut.ipynb")
    cells = saved_cells(page, lab[1] / "cut.ipynb")
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    move_sliders(page)
    cell = page.locator(".jp-CodeCell", has_text='check("lab1.round_shift"')
    output = cell.locator(".jp-OutputArea")
    output.get_by_text("not written yet").wait_for()
    for body, verdict in (
        ("value >> exponent", "not yet"),
        ("(abs(value) + (1 << exponent >> 1) >> exponent) * (1 if value > 0 else -1)", "right in all"),
    ):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(
            f'def round_shift(value, exponent):\n    return {body}\n\n\ncheck("lab1.round_shift", round_shift)'
        )
        page.keyboard.press("Control+Enter")
        output.get_by_text(verdict).wait_for()
