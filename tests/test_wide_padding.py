"""Windows that lie wholly in the padding, which torch allows for convolutions: every form, the interpreter's bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from form_cases import HostForms, cases_of
from strategies import Layer

from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Graph, output_shape

SPECS = ("conv1x1s2:16-5@5x5", "conv3x3:8-5@7x5", "conv5x2s3:3-4@6x8", "depthwise1x3s2:6@9x7", "depthwise2x1s3:5@8x6")
BEYOND = ((1, 1), (2, 5))  # rows or columns that the padding is wider than the window, before and after


def padded(spec: str, seed: int, padding: tuple[int, int, int, int]) -> Graph:
    """Returns the layer with other padding."""
    graph = layer_graph(parse_spec(spec), seed)
    op = replace(graph.ops[0], padding=padding)  # type: ignore[call-arg]
    output = replace(graph.output, shape=output_shape(graph, op))
    return replace(graph, ops=(op,), tensors=graph.tensors | {"output": output})


def wide_layers() -> list[Layer]:
    """Returns each layer with padding wider than its window: above and below, and all around."""
    found, rng = [], np.random.default_rng(0)
    for seed, spec in enumerate(SPECS):
        rows, columns = parse_spec(spec).kernel
        for before, after in BEYOND:
            for y, x in ((1, 0), (1, 1)):
                sides = (y * (rows + before), y * (rows + after), x * (columns + after), x * (columns + before))
                graph = padded(spec, seed, sides)
                found.append(Layer(graph, (rng.integers(-128, 128, graph.input.shape).astype(np.int8),)))
    return found


def test_every_form_where_windows_see_no_pixel(tmp_path: Path) -> None:
    cases = cases_of(wide_layers(), "cortex-m4")
    forms = HostForms(cases, tmp_path)
    assert {case.form.name.split("_")[0] for case in cases} >= {"gemm", "depthwise"}
    for i, case in enumerate(cases):
        np.testing.assert_array_equal(forms.run(i, case), case.layer.expected(), err_msg=f"{case.form.name}: {case.layer.graph}")
    assert forms.close() == ""
