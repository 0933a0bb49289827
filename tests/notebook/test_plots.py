"""Figures: drawn from results alone, the same bytes each time, with words that say what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from random_graphs import random_graph

from tinyredux import Settings, compile_net, fixedpoint, memory, recorded
from tinyredux.explore import plans
from tinyredux.graph import macs
from tinyredux.int8 import interpret
from tinyredux.measurement import Measurement, OpRecord
from tinyredux.notebook import plots, plots_partial, plots_redundancy
from tinyredux.notebook.plots_digest import digest
from tinyredux.notebook.plots_style import Picture, bare_image, figure_with_axes
from tinyredux.trec import hashing

COMPILED = compile_net(Settings("lenet", kernels="reference", data="synthetic"))


def record(board: str, kind: str) -> Measurement:
    """A record with made-up cycles: what a figure shows must come from it."""
    graph, plan = COMPILED.int8, COMPILED.plan
    ops = [
        OpRecord(op.name, type(op).__name__, macs(graph, op), macs(graph, op), 1000 * (i + 1), step.live_bytes)
        for i, (op, step) in enumerate(zip(graph.ops, plan.steps, strict=True))
    ]
    return Measurement(
        net="lenet", method="exact", board=board, target="simulator", kernels="reference", data="synthetic", model_hash="0",
        compiler="", flags="", tinyredux="0", images=1, correct=1, accuracy=1.0, correct_float=1, accuracy_float=1.0,
        bit_exact=True, instructions=1, cycles=28000, cycles_kind=kind, timing_model="m", ms=70.0, macs_dense=1, macs_executed=1,
        sram_bytes={"arena": 36000, "scratch": 0, "stack": 700, "static": 48, "total": 36748},
        flash_bytes={"code": 12000, "weights": 125160, "total": 137160}, per_op=ops,
    )  # fmt: skip


RECORDS = [record("disco_f469ni", "modelled"), record("nucleo_f746zg", "modelled-estimate")]
IMAGES = interpret.quantize_input(COMPILED.int8, COMPILED.data.test.first(6).images)
OUTPUTS = interpret.run(COMPILED.int8, IMAGES)
FIRST = COMPILED.int8.ops[0].output
VALUES = interpret.run_all(COMPILED.graph, COMPILED.data.test.first(2).images.transpose(0, 2, 3, 1))[FIRST]
QUANT = COMPILED.int8.tensors[FIRST].quant
assert QUANT is not None

PHOTO = plots_redundancy.photograph(64)
WINDOWS = interpret.windows(PHOTO[None], (3, 3), (1, 1), (0, 0, 0, 0), 0)
CLUSTERS = hashing.cluster(hashing.hash_ids(hashing.hash_bits(WINDOWS.reshape(1, -1, 27)[..., :5], "mean")))
CURVE = plots_redundancy.curve(recorded("trec_redundancy"), "cifarnet", "body.2.0")

FIGURES: dict[str, Callable[[], Picture]] = {
    "memory_timeline": lambda: plots.memory_timeline(COMPILED.int8, COMPILED.plan),
    "cycles_per_operator": lambda: plots.cycles_per_operator(RECORDS),
    "quantization": lambda: plots.quantization(VALUES, QUANT, FIRST),
    "rounding_staircase": lambda: plots.rounding_staircase(1518500250, -3, -40, 40),
    "predictions": lambda: plots.predictions(COMPILED.data, OUTPUTS, [0, 3, 5]), "memory_use": lambda: plots.memory_use(RECORDS),
    "clusters": lambda: plots_redundancy.clusters(PHOTO, WINDOWS[0], CLUSTERS),
    "ablation": lambda: plots_redundancy.ablation(recorded("trec_ablation")),
    "front": lambda: plots_redundancy.front(recorded("trec_front"), recorded("trec_exact")),
    "sweep": lambda: plots_redundancy.sweep(recorded("trec_layers")),
    "lost_and_saved": lambda: plots_redundancy.lost_and_saved(recorded("trec_sensitivity"), "zfnet", 4, "disco_f469ni"),
    "clusters_inside": lambda: plots_redundancy.clusters_inside(COMPILED.int8, IMAGES[:1], 4),
    "idle_bytes": lambda: plots_partial.idle_bytes(COMPILED.model),
    "partial_timeline": lambda: plots_partial.partial_timeline(plans.plan(COMPILED.int8, "lenet")),
    "cycles_and_bytes": lambda: plots_partial.cycles_and_bytes(recorded("together.zfnet.disco_f469ni")["runs"], "together"),
    "accuracy_and_bytes": lambda: plots_partial.accuracy_and_bytes(recorded("sram_curve.keywords")["points"], "keywords"),
    "removed_and_lost": lambda: plots_redundancy.removed_and_lost({"conv2": CURVE}),
    "serial_exchange": lambda: plots.serial_exchange(RECORDS[0], 3072, 10, 115200),
}  # fmt: skip


WORDS = {
    "memory_timeline": "36000 bytes", "partial_timeline": "layer by layer 36000 bytes in 7 steps",
    "cycles_per_operator": "in dense2", "memory_use": "36748 bytes of SRAM, 137160 of flash", "serial_exchange": "267 ms to send",
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_each_time_and_has_words(name: str) -> None:
    one, other = FIGURES[name](), FIGURES[name]()
    data = one._repr_png_()
    assert digest(one.figure) == digest(other.figure)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) < 100_000
    assert name != "memory_use" or data == other._repr_png_()
    assert repr(one) == repr(other) and repr(one).endswith(".") and WORDS.get(name, "") in repr(one)
    for axes in one.figure.axes:
        assert axes.get_title(loc="left") or axes.get_title() or axes.get_xlabel()
        assert name in ("predictions", "clusters", "clusters_inside") or axes.get_xlabel() or axes.get_ylabel()


def drawn(
    *, heights: tuple[float, ...] = (3.0, 2.0), colour: str = "#0072B2", label: str = "conv1", tick: str = "a", grey: float = 90.0
) -> str:
    """The digest of a small figure with a line, bars, points, a legend, named ticks and an image."""
    figure, (left, right) = figure_with_axes(4, 2, 2)
    left.bar([0, 1], heights, color=colour, label=label)
    left.plot([0, 1], heights)
    left.scatter([0, 1], heights)
    left.set_xticks([0, 1], [tick, "b"])
    left.legend()
    bare_image(right, np.full((4, 4, 3), grey), "grey")
    return digest(figure)


def test_a_digest_tells_what_a_figure_draws() -> None:
    changed = [drawn(heights=(3.0, 2.01)), drawn(colour="#E69F00"), drawn(label="conv2"), drawn(tick="c"), drawn(grey=91.0)]
    assert len({drawn(), *changed}) == 6
    assert drawn() == drawn() == drawn(heights=(3.0 + 1e-12, 2.0))


def test_two_records_of_one_board_have_a_legend_of_their_own_in_the_digest() -> None:
    fast = plots.cycles_per_operator([RECORDS[0], replace(RECORDS[0], kernels="fast")])
    assert digest(fast.figure) != digest(plots.cycles_per_operator([RECORDS[0], RECORDS[0]]).figure)


def test_a_notebook_stores_words_digest_and_pixels() -> None:
    picture = FIGURES["memory_use"]()
    stored, _ = DisplayFormatter().format(picture)
    assert stored["text/plain"] == f"{picture.text} [drawing {digest(picture.figure)}]"
    assert stored["image/png"][:4] == b"\x89PNG" and repr(picture) == picture.text


def test_the_staircase_counts_what_the_rules_say() -> None:
    x = np.arange(0, 4096)
    once = (x * 1518500250 + (1 << 33)) >> 34
    differ = int((once != fixedpoint.multiply_by_quantized_multiplier(x, 1518500250, -3)).sum())
    assert f"differs at {differ} of 4096." in repr(plots.rounding_staircase(1518500250, -3, 0, 4095))


def test_no_point_of_the_book_lies_below_its_own_floor() -> None:
    points = plots_redundancy.points(recorded("trec_redundancy"))
    assert len(points) > 100 and all(point["removed"] >= point["floor"] - 1e-9 for point in points)


def test_a_curve_is_drawn_above_a_floor_of_its_own() -> None:
    """Layers of 100 and of 16 rows: one floor for both would lie above the second one's curve."""
    chance = np.random.default_rng(0)
    rows = {count: chance.integers(-9, 9, (1, count, 8)) for count in (100, 16)}
    vectors = chance.integers(-9, 9, (8, 6))
    found = {f"{n} rows": [hashing.measure(one, vectors[:, :bits]) for bits in (1, 3, 6)] for n, one in rows.items()}
    left, right = plots_redundancy.removed_and_lost(found).figure.axes
    curves, floors = (
        [line for line in left.lines if line.get_linestyle() == kind and len(line.get_xdata())] for kind in ("-", "--")
    )
    assert len(curves) == len(floors) == 2 and [one.get_color() for one in curves] == [one.get_color() for one in floors]
    heights = {line: np.asarray(line.get_ydata(), float) for line in (*curves, *floors)}
    for curve, floor, points in zip(curves, floors, found.values(), strict=True):
        assert heights[floor].tolist() == [100 * point.floor for point in points]
        assert (heights[curve] >= heights[floor] - 1e-9).all()
    assert heights[floors[0]].tolist() != heights[floors[1]].tolist() and len(right.lines) == 2


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="needs records with cycles"):
        plots.cycles_per_operator([replace(RECORDS[0], cycles=None)])
    with pytest.raises(ValueError, match="the classes of random have no names"):
        plots.predictions(replace(COMPILED.data, name="random"), OUTPUTS, [0])
    branch = random_graph(4)  # one with branches can
    assert len(plots.memory_timeline(branch, memory.plan(branch))._repr_png_()) < 150_000
