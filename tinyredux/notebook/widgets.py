"""Six flip-books: pictures of the book for several values of one number, with a slider to turn them.

The slider and its pictures are HTML with a few lines of script inside. So it moves in the built book and on a phone, where no
kernel runs, and in JupyterLab once the reader has run the cell. Lab takes scripts out of outputs that it does not trust, which
are those of a notebook from elsewhere: there the first picture stands still, with its words. ipywidgets need a kernel that
computes, so they are for what a file cannot hold: `live` shows values that nobody has prepared. An output of theirs is never
stored, for without their kernel they show nothing. What nbval compares is the text: each picture's words and its digest.

Frames have most of their letters in common, so they are packed together (zlib) and unpacked by the browser; the first one also
stands in the image itself. Their paper is transparent: a page gives them its own, and turns them round where it is dark.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from tinyredux import memory
from tinyredux.datasets import Dataset
from tinyredux.graph import Convolution, Graph
from tinyredux.int8 import interpret
from tinyredux.memory import Item, Schedule
from tinyredux.notebook import plots, plots_partial, plots_redundancy
from tinyredux.notebook.plots_style import Picture
from tinyredux.skip import Statistics, skip
from tinyredux.trec import hashing

PAGE = """<figure class="{kind}" style="margin: 0; padding: 0.5rem; background: #fff; color: #222; color-scheme: light">
<label>{name}: <output>{value}</output><br><input type="range" min="0" max="{last}" value="{first}"
data-lm-suppress-shortcuts="true" style="display: none; width: 100%; max-width: 30rem"></label>
<small>(run the cell to move it)</small>
<img style="width: 100%" alt="{words}" src="{drawing}"><figcaption aria-hidden="true">{words}</figcaption>
<script type="application/json">{others}</script><script>(figure => {{
const get = name => figure.querySelector(name), [range, image] = [get("input"), get("img")];
const [pages, packed] = JSON.parse(get("script").textContent);
const bytes = Uint8Array.from(atob(packed.split(",")[1]), letter => letter.charCodeAt());
const drawings = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
range.style.display = ""; get("small").remove();
range.oninput = async () => {{
  const [value, words] = pages[range.value];
  get("output").value = value; range.setAttribute("aria-valuetext", value);
  get("figcaption").textContent = image.alt = words; image.src = (await drawings)[range.value];
}};
}})(document.currentScript.parentNode)</script></figure>"""


@dataclass(frozen=True)
class FlipBook:
    """Pictures of `draw` for each of `values`, of which the number `first` is shown until somebody turns."""

    name: str
    draw: Callable[[Any], Picture]
    values: Sequence[Any]
    first: int = 0
    photograph: bool = False  # keeps its paper on a dark page, where other drawings have their lightness turned round

    @cached_property
    def pages(self) -> list[tuple[str, Picture]]:
        """The prepared values in words, each with its picture; drawn once."""
        return [(_told(value), self.draw(value)) for value in self.values]

    def __repr__(self) -> str:
        """Returns every picture in words."""
        return "\n".join([f"{self.name}, {len(self.pages)} pictures:", *(f"{value}: {one.told}" for value, one in self.pages)])

    def _repr_html_(self) -> str:
        drawings = ["data:image/svg+xml," + quote(one.svg(), safe=" <>=/:;,()+'") for _, one in self.pages]
        packed = base64.b64encode(zlib.compress(json.dumps(drawings).encode(), 9)).decode()
        told = [(value, one.text) for value, one in self.pages]
        others = json.dumps([told, f"data:application/zlib;base64,{packed}"]).replace("</", r"<\/")
        drawing, (value, words) = drawings[self.first], told[self.first]
        kind = "flipbook photograph" if self.photograph else "flipbook"
        shown = {"kind": kind, "first": self.first, "last": len(told) - 1, "drawing": drawing, "others": others}
        return PAGE.format(name=escape(self.name), value=escape(value), words=escape(words), **shown)

    def live(self, values: Iterable[Any]) -> Any:
        """Returns a slider of ipywidgets over any values, which draws each one when it is asked for."""
        import ipywidgets  # type: ignore[import-untyped, import-not-found, unused-ignore]

        slider = ipywidgets.SelectionSlider(options=[(_told(value), value) for value in values], description=self.name)
        slider.style.description_width = "initial"
        return ipywidgets.interactive(lambda value: self.draw(value), {"auto_display": True}, value=slider)


def _told(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def hash_bits(bits: Sequence[int] = (1, 2, 3, 4, 6, 8), seed: int = 0) -> FlipBook:
    """Returns a photograph's clusters and their means over the bits of the hash, a random direction for each bit."""
    photo = plots_redundancy.photograph(64)
    windows = interpret.windows(photo[None], (3, 3), (1, 1), (0, 0, 0, 0), 0)
    vectors = np.random.default_rng(seed).integers(-100, 101, (27, 32))

    def draw(bits: int) -> Picture:
        ids = hashing.hash_ids(hashing.hash_bits(windows.reshape(1, -1, 27) @ vectors[:, :bits], "mean"))
        return plots_redundancy.clusters(None, windows[0], hashing.cluster(ids))

    return FlipBook("Bits of the hash", draw, bits, 4, photograph=True)


def slice_width(graph: Graph, widths: Sequence[int] = (1, 4, 8, 16, 32)) -> FlipBook:
    """Returns the timeline of LeNet over the width of a slice, for each convolution that runs with the pool behind it."""
    pairs = {"conv1": "maxpool1", "conv2": "maxpool2"}
    alone = [op.name for op in graph.ops if op.name not in pairs.values()]

    def draw(width: int) -> Picture:
        items = [Item((name, pairs[name]), "materialise", width) if name in pairs else Item((name,)) for name in alone]
        program = memory.lower(graph, Schedule(tuple(items)))
        return timeline(graph, program, memory.place(program))

    return FlipBook("Channels of a slice", draw, widths)


def timeline(graph: Graph, program: memory.Program, arena: memory.Arena) -> Picture:
    """Returns a placed program beside the plan layer by layer."""
    from tinyredux.explore import plans

    whole = plans.layerwise_steps(graph, memory.plan(graph))
    answer = {"net": graph.name, "layerwise": whole, "steps": plans.program_steps(program, arena)}
    return plots_partial.partial_timeline(answer)


def shift(shifts: Sequence[int] = (0, 1, 2, 3, 4, 5), multiplier: int = 1518500250) -> FlipBook:
    """Returns the rounding staircase over the bits by which the product is shifted to the right."""
    return FlipBook("Bits of the shift", lambda s: plots.rounding_staircase(multiplier, -s, -40, 40), shifts, 3)


def sram_limit(graph: Graph, limits: Sequence[int] = (12288, 16384, 20480, 28672)) -> FlipBook:
    """Returns the fastest plan of a network in parts over the bytes that it may take, and what it costs in cycles."""
    from tinyredux.flow import compile  # needs torch, without which the flip-books of photograph and staircase do
    from tinyredux.methods.partial import Partial

    def draw(limit: int) -> Picture:
        model = compile(graph, schedule=Partial(sram=limit))
        picture = timeline(graph, model.steps.program, model.steps.arena)
        picture.figure.suptitle(model.notes[0])
        return replace(picture, text=f"{picture.text[:-1]}; {model.notes[0]}.")

    return FlipBook("Bytes of SRAM at most", draw, limits)


def price(graph: Graph, statistics: dict[str, Statistics], data: Dataset, count: int = 5) -> FlipBook:
    """Returns corners of the maps of weights left out over the price of a multiplication, and how many images stay right."""
    from tinyredux.int8 import evaluator
    from tinyredux.notebook import plots_skipping
    from tinyredux.skip.records import path_of
    from tinyredux.train import skip_search

    paths = {op: path_of(graph, op, found, "block") for op, found in statistics.items()}
    worth, images = skip_search.worths(graph, "block"), data.validation
    prices = skip_search.prices_of(paths, worth)

    def draw(price: float) -> Picture:
        less = skip(graph, skip_search.below(paths, worth, price), statistics)
        picture = plots_skipping.skip_maps(graph, less, most=(16, 72))
        told = f"{evaluator.correct(less, images)} of {images.count} validation images right"
        picture.figure.suptitle(told)
        return replace(picture, text=f"{picture.text[:-1]}; {told}.")

    chosen = [prices[i * (len(prices) - 1) // (count - 1)] for i in range(count)]
    return FlipBook("Price, expected loss for each multiplication", draw, chosen, 1)


def threshold(graph: Graph, images: interpret.Batch, op: str, bits: int = 8) -> FlipBook:
    """Returns what the hash of a convolution's own filters removes and loses behind a ReLU, bit by bit, each tap a block of its
    own, with the threshold at zero and at the mean."""
    conv = graph.by_name[op]
    maps = graph.tensors[conv.inputs[0]]
    assert isinstance(conv, Convolution) and maps.quant
    stored = interpret.run_all(graph, images)[maps.name].astype(np.int64) - maps.quant.zero_point
    seen = interpret.windows(stored, conv.kernel, conv.stride, conv.padding, 0)
    taps = conv.kernel[0] * conv.kernel[1]
    rows = np.moveaxis(seen.reshape(len(images), -1, taps, maps.shape[2]), 2, 1)
    filters = graph.constants[conv.weights].astype(np.int64)[:bits].reshape(bits, taps, -1).transpose(1, 2, 0)
    vectors, groups = np.tile(filters, (len(images), 1, 1)), rows.reshape(-1, *rows.shape[2:])

    def draw(where: str) -> Picture:
        found = [hashing.measure(groups, vectors[:, :, :count], where) for count in range(1, bits + 1)]
        return plots_redundancy.removed_and_lost({f"{op}, threshold {where}": found})

    return FlipBook("Threshold of the hash", draw, ("zero", "mean"))
