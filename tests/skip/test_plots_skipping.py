"""Figures of skipping: the same bytes each time, and words that carry the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_skipping import prepared

from tinyredux.notebook import plots_skipping, skip_report
from tinyredux.notebook.plots_digest import digest
from tinyredux.notebook.plots_style import Picture
from tinyredux.skip import cuts

GRAPH, STATISTICS, _ = prepared()
CUTS = cuts.cuts_by_reading(GRAPH, {"conv": STATISTICS}, "expected loss", "block", 0.4)


def design(cycles: int, right: int, measured: bool) -> dict[str, Any]:
    return {
        "predicted": {"cycles": cycles}, "measured": {"cycles": cycles} if measured else None, "validation_correct": right,
        "validation_images": 100,
    }  # fmt: skip


RESULT = {
    "net": "lenet", "board": "disco_f469ni", "data": "cifar10", "kernels": "fast", "validation": {"images": 100, "exact": 90},
    "baselines": [{"kernels": k, "measured": {"cycles": cycles}} for k, cycles in (("reference", 9000), ("fast", 4000))],
    "front": [design(2000, 85, True), design(2500, 84, False), design(3000, 90, False), design(3500, 92, True)],
}  # fmt: skip
OTHER = RESULT | {"board": "nucleo_u575zi_q"}
TUNED = {"net": "lenet", "board": "disco_f469ni", "kernels": "fast", "cycles": 2900, "points": 0.4}
FIGURES: dict[str, Callable[[], Picture]] = {
    "two_readings": lambda: plots_skipping.two_readings(GRAPH, "conv", STATISTICS),
    "right_by_share": lambda: plots_skipping.right_by_share({"ours": {0.1: 90, 0.5: 40}}, 95, 100),
    "skip_maps": lambda: plots_skipping.skip_maps(GRAPH, cuts.skip(GRAPH, CUTS, {"conv": STATISTICS})),
    "fronts": lambda: plots_skipping.fronts([RESULT, OTHER], [TUNED]),
}


def test_figures_are_the_same_each_time_name_their_axes_and_their_words_carry_the_numbers() -> None:
    gone = (cuts.skip(GRAPH, CUTS, {"conv": STATISTICS}).constants["w"] == 0) & (GRAPH.constants["w"] != 0)
    words = {"fronts": "lenet, nucleo_u575zi_q, fast: 25.0 % fewer cycles at no loss", "skip_maps": f"conv {gone.mean():.0%}",
             "right_by_share": "exact 95 of 100. ours: 40 of 100 at 50%", "two_readings": ""}  # fmt: skip
    for name, make in FIGURES.items():
        one, other = make(), make()
        assert len(one._repr_png_()) < 100_000 and digest(one.figure) == digest(other.figure) and repr(one).endswith(".")
        assert all(axes.get_xlabel() for axes in one.figure.axes) and words[name] in repr(one)


def test_summaries() -> None:
    """What goes at each loss; tuned networks are faster and lose nothing on test images."""
    trials = {"done": 4}, {"test_points_lost": 0.1}, {"finalists_error_percent": {"cycles": 1}}
    (row,) = skip_report.summary([RESULT | dict(zip(("trials", "no_loss", "cost_model"), trials, strict=True))])
    assert [row[f"fewer_at_{loss}"] for loss in (0, 1, 5)] == [25.0, 25.0, 50.0] and row["test_lost"] == 0.1
    assert skip_report.exact_cycles(RESULT | {"baselines": []}, "fast") is None
    rows = skip_report.tuned(("lenet", "alexnet"), ("disco_f469ni", "nucleo_u575zi_q"))
    assert len(rows) == 4 and all(row["fewer"] > 15 and row["test_points"] >= 0 for row in rows)


def test_every_reading_leaves_out_the_share_and_unknown_ones_are_refused() -> None:
    for reading in cuts.READINGS:
        cut = cuts.cuts_by_reading(GRAPH, {"conv": STATISTICS}, reading, "block", 0.4)["conv"]
        assert abs(cut.share - 0.4) < 0.02
    with pytest.raises(ValueError, match="expected one of running, share, magnitude, expected loss"):
        cuts.cuts_by_reading(GRAPH, {"conv": STATISTICS}, "tea leaves", "block", 0.4)
