"""Flip-books: their pictures are those of the library, their words say so, their HTML asks nobody for anything."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from tinyredux import Settings, compile, compile_net
from tinyredux.explore import plans
from tinyredux.int8 import evaluator, interpret
from tinyredux.methods.partial import Partial
from tinyredux.notebook import widgets
from tinyredux.notebook.widgets import FlipBook
from tinyredux.skip import skip, windows
from tinyredux.skip.records import path_of, statistics_of
from tinyredux.train import skip_search
from tinyredux.trec import Choice, clustered_sums, with_trec

pytestmark = pytest.mark.slow

LENET = compile_net(Settings("lenet", kernels="reference", data="synthetic"))
DATA = replace(LENET.data, train=LENET.data.train.first(100), validation=LENET.data.validation.first(100))
IMAGES = interpret.quantize_input(LENET.int8, LENET.data.test.images[:4])
STATISTICS = statistics_of(LENET.int8, DATA)
ZFNET = plans.int8_graph("zfnet", "synthetic")

BOOKS: dict[str, Callable[[], FlipBook]] = {
    "hash_bits": widgets.hash_bits,
    "slice_width": lambda: widgets.slice_width(LENET.int8),
    "shift": widgets.shift,
    "sram_limit": lambda: widgets.sram_limit(ZFNET, (12288, 20480)),
    "price": lambda: widgets.price(LENET.int8, STATISTICS, DATA, 3),
    "threshold": lambda: widgets.threshold(LENET.int8, IMAGES, "conv2"),
}
LIMIT_BYTES = 110_000


@cache
def book(name: str) -> FlipBook:
    return BOOKS[name]()


def numbers(name: str, pattern: str) -> list[float]:
    """What a pattern finds in the words of each page."""
    found = [re.search(pattern, line) for line in repr(book(name)).splitlines()[1:]]
    return [float(one[1]) for one in found if one]


@pytest.mark.parametrize("name", BOOKS)
def test_the_text_has_every_page_in_words_of_its_own(name: str) -> None:
    title, *lines = repr(book(name)).splitlines()
    assert title == f"{book(name).name}, {len(book(name).values)} pictures:" and len(lines) == len(book(name).values) > 1
    told = [re.fullmatch(r"(\S+): (.+\.) \[drawing ([0-9a-f]{8})\]", line) for line in lines]
    assert all(told)
    for group in (1, 3):
        assert len({one[group] for one in told if one}) == len(lines)
    assert len({one[2] for one in told if one}) > len(lines) // 2  # of shifts, two have as many differences


@pytest.mark.parametrize("name", BOOKS)
def test_the_html_holds_every_page_and_asks_nobody(name: str) -> None:
    html = book(name)._repr_html_()
    shown = re.search(r'<img [^>]*alt="([^"]*)" src="([^"]*)"', html)
    found = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert shown and found
    pages, packed = json.loads(found[1])
    assert list(map(tuple, pages)) == [(value, picture.text) for value, picture in book(name).pages]
    first = book(name).first
    drawings = json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("data:application/zlib;base64,"))))
    assert unescape(shown[1]) == pages[first][1] and shown[2] == drawings[first]
    assert f"<output>{pages[first][0]}</output>" in html and f'max="{len(pages) - 1}" value="{first}"' in html
    assert len(set(drawings)) == len(pages)
    for drawing in (unquote(one.removeprefix("data:image/svg+xml,")) for one in drawings):
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert all(link.startswith(("#", "data:")) for link in re.findall(r"(?:href=|src=|url\()['\"]?([^'\")]*)", drawing))
    assert re.findall(r'(?:src|href)="(?!data:)', html) == [] and "import" not in html
    assert len(json.dumps(html)) < LIMIT_BYTES


def test_what_nbval_leaves_out_is_drawings_alone() -> None:
    rules = re.findall(r"regex: (.*)\nreplace: (.*)", (Path(__file__).parents[1] / "sanitize.cfg").read_text())
    html = book("shift")._repr_html_()
    for pattern, word in rules:
        html = re.sub(pattern, word, html)
    assert "svg" not in html and html.count("DRAWING") == html.count("FRAMES") == 1 and len(html) < 4000
    assert all(words in html for words in (picture.text for _, picture in book("shift").pages))


def test_a_slice_takes_its_channels_and_no_more() -> None:
    whole = 3072 + 7200 + 112  # the image, what the first pool keeps, the convolution's scratch
    assert numbers("slice_width", r"in parts (\d+) bytes") == [whole + 30 * 30 * width for width in book("slice_width").values]


def test_a_plan_keeps_to_the_limit_and_costs_less_with_more() -> None:
    limits, taken = book("sram_limit").values, numbers("sram_limit", r"in parts (\d+) bytes")
    factors = numbers("sram_limit", r"([\d.]+) times the cycles")
    assert all(size <= limit for size, limit in zip(taken, limits, strict=True)) and taken == sorted(taken)
    assert len(factors) == len(limits) and factors == sorted(factors, reverse=True) and factors[-1] > 1
    model = compile(ZFNET, schedule=Partial(sram=limits[1]))
    assert model.plan.total_bytes == taken[1] and f"{factors[1]:.2f} times" in model.notes[0]


def test_a_price_leaves_out_what_the_search_would() -> None:
    graph, prices = LENET.int8, book("price").values
    paths = {op: path_of(graph, op, found, "block") for op, found in STATISTICS.items()}
    cuts = [skip_search.below(paths, skip_search.worths(graph, "block"), price) for price in prices]
    assert prices[0] == 0 and prices == sorted(prices)
    shares = [round(100 * np.mean(windows(skip(graph, cut, STATISTICS, "none"), "conv2") == 0)) for cut in cuts]
    assert numbers("price", r"conv2 (\d+)%") == pytest.approx(shares, abs=2)  # some weights are zero anyway
    right = [evaluator.correct(skip(graph, cut, STATISTICS), DATA.validation) for cut in cuts]
    assert numbers("price", r"(\d+) of 100 validation") == right and right[0] > right[-1]


def test_a_threshold_removes_what_the_operator_does() -> None:
    graph, expected = LENET.int8, []
    for where in book("threshold").values:
        trec = with_trec(graph, {"conv2": Choice(sub_length=32, hash_bits=8, threshold=where)})
        op = trec.by_name["conv2"]
        stored = interpret.run_all(graph, IMAGES)[op.inputs[0]].astype(np.int64) - graph.tensors[op.inputs[0]].quant.zero_point
        columns = interpret.windows(stored, op.kernel, op.stride, op.padding, 0).reshape(len(IMAGES), -1, 288)
        weights = trec.constants[op.weights].astype(np.int64).reshape(64, 288)
        clusters = clustered_sums(trec, op, columns, weights).clusters
        expected.append(round(100 * (1 - clusters.sum() / (clusters.size * columns.shape[1])), 1))
    assert numbers("threshold", r"([\d.]+) % removed") == expected and expected[0] > expected[1]


def test_a_live_slider_draws_a_value_that_is_on_no_page() -> None:
    ipywidgets = pytest.importorskip("ipywidgets")
    live = book("shift").live(range(9))
    slider = live.children[0]
    assert isinstance(slider, ipywidgets.SelectionSlider) and slider.description == "Bits of the shift"
    slider.value = 8
    live.update()
    assert "differs at 0 of 81" in live.result.text
