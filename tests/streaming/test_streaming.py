"""The law of streaming: every byte of every push is that of the whole window, in NumPy, in the arena and in C."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_streams import RandomStream

from tinyredux import memory, streaming
from tinyredux.device.link import LinkError
from tinyredux.flow import compile, measure
from tinyredux.graph import Attention, Conv, DepthwiseConv, Graph, LayerNorm, Op, Quant, Tensor, output_shape
from tinyredux.int8 import interpret
from tinyredux.memory import run_schedule
from tinyredux.methods.partial import Partial
from tinyredux.methods.skip import Skip
from tinyredux.methods.streaming import Streaming
from tinyredux.settings import Settings


def rows_of(graph: Graph, pushes: int, frames: int, seed: int) -> np.ndarray:
    height, *rest = graph.input.shape
    return np.random.default_rng(seed).integers(-128, 128, (height + pushes * frames, *rest)).astype(np.int8)


def check(seed: int, pushes: int, compiled: bool) -> streaming.Plan:
    """Pushes random rows through a random network; returns its plan."""
    net = RandomStream(seed)
    graph, frames = net.graph(), net.frames
    plan = streaming.plan(graph, frames)
    pushed, windows = streaming.sliding(plan.graph, rows_of(graph, pushes, frames, seed))
    expected = interpret.run_joined(graph, windows)
    stream = streaming.Stream(plan.graph)
    outputs = [stream.push(frame) for frame in pushed]
    silent = plan.graph.pushes - 1
    assert all(output is None for output in outputs[:silent])
    np.testing.assert_array_equal(np.stack(outputs[silent:]), expected, err_msg=f"seed {seed}")  # type: ignore[arg-type]
    program, arena = memory.place_reference(plan.graph)
    memory.verify(program, arena)
    held = np.full(arena.size_bytes, 0x55, np.int8)
    in_arena = [run_schedule.run(program, arena, frame, held) for frame in pushed][silent:]
    np.testing.assert_array_equal(np.stack(in_arena), expected, err_msg=f"seed {seed}")
    assert plan.state_bytes == sum(plan.graph.tensors[name].size_bytes for name in plan.graph.states)
    assert plan.macs[0] <= plan.macs[1]
    if compiled:
        model = compile(graph, passes=[Streaming(frames)])
        with model.open("host") as target:
            by_c = [target.push(frame, number).output for number, frame in enumerate(pushed)][silent:]
        np.testing.assert_array_equal(np.stack(by_c), expected, err_msg=f"seed {seed}")
    return plan


@pytest.mark.parametrize("seed", range(24))
def test_every_push_has_the_bytes_of_its_window(seed: int) -> None:
    check(seed, 12, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24, 27))
def test_every_push_of_the_c_has_the_bytes_of_its_window(seed: int) -> None:
    check(seed, 12, compiled=True)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_the_law_at_large(seed: int) -> None:
    check(seed, 100, compiled=seed % 5 == 0)


def test_normalised_rows_are_kept() -> None:
    """A normalisation computes each place by itself, so of a window only the new rows; an attention reads all of it at once."""
    graph = small()
    norm = LayerNorm("norm", ("input",), "normal")
    ops = [replace(op, inputs=tuple("normal" if name == "input" else name for name in op.inputs)) for op in graph.ops]
    normal = graph.with_ops([norm, *ops], tensors=graph.tensors | {"normal": replace(graph.input, name="normal")})
    plan = streaming.plan(normal, 1)
    pushed, windows = streaming.sliding(plan.graph, rows_of(normal, 6, 1, 0))
    stream = streaming.Stream(plan.graph)
    outputs = [output for frame in pushed if (output := stream.push(frame)) is not None]
    np.testing.assert_array_equal(np.stack(outputs), interpret.run_joined(normal, windows))
    assert plan.graph.tensors["normal"].shape[0] < normal.input.shape[0]
    attention = Attention("attention", ("normal",) * 3, "attended")
    attended = normal.with_ops([norm, attention], tensors=normal.tensors | {"attended": replace(graph.input, name="attended")})
    assert streaming.slides(replace(attended, outputs=("attended",)))["attended"].note == "reads the whole window at once"


def small() -> Graph:
    """Returns a network of two valid convolutions in time and a dense layer."""
    return next(net.graph() for seed in range(100) if (net := RandomStream(seed, ("valid",))).frames == 1 and len(net.ops) > 3)


def frames_of(graph: Graph, count: int) -> list[np.ndarray]:
    streamed = streaming.streamed(graph)
    return streaming.sliding(streamed, rows_of(graph, count, 1, 5))[0]


def test_a_lost_or_repeated_frame_is_refused_and_the_stream_stays() -> None:
    graph = small()
    frames, model = frames_of(graph, 3), compile(graph, passes=[Streaming()])
    with model.open("host") as target:
        expected = [target.push(frame, number).output for number, frame in enumerate(frames)]
        outputs = []
        for number, frame in enumerate(frames):
            outputs.append(target.push(frame, number).output)
            for wrong in (number or 2, number + 2):  # repeated, lost; number 0 would begin a new stream
                with pytest.raises(ValueError, match=f"frame {wrong} came, the next one is {number + 1}"):
                    target.push(frame, wrong)
        silent = model.graph.pushes - 1
        np.testing.assert_array_equal(np.stack(outputs[silent:]), np.stack(expected[silent:]))


@pytest.mark.slow
def test_the_firmware_refuses_a_frame_that_is_not_the_next_one() -> None:
    graph = small()
    frames, model = frames_of(graph, 3), compile(graph, "nucleo_l4r5zi", passes=[Streaming()])
    windows = streaming.sliding(model.graph, rows_of(graph, 3, 1, 5))[1]
    with model.open("simulator") as target:
        with pytest.raises(LinkError, match="frame 1 came, the next one is 0"):
            target.push(frames[0], 1)
        for number, frame in enumerate(frames):
            run = target.push(frame, number)
            with pytest.raises(LinkError, match=f"the next one is {number + 1}; begin again at 0"):
                target.push(frame, number + 2)
        np.testing.assert_array_equal(run.output, interpret.run_joined(graph, windows)[-1])
        with pytest.raises(LinkError, match="refused"):
            target.push(frames[-1], len(frames) - 1)
        np.testing.assert_array_equal(target.push(frames[0], 0).output.shape, run.output.shape)  # a new stream


def test_the_header_says_the_state_of_the_plan() -> None:
    graph = small()
    plan, model = streaming.plan(graph), compile(graph, passes=[Streaming()])
    header = model.artifact.files["model.h"]
    assert f"#define TR_STATE_BYTES {plan.state_bytes}\n" in header
    assert f"#define TR_STREAM_PUSHES {graph.input.shape[0]}\n" in header
    assert "tr_push" not in compile(graph).artifact.files["model.h"]


def wake_word() -> Graph:
    """Returns a network of MLPerf Tiny's streaming wake word's shapes: 30 rows of 40, windows of 3, 5, 10 and 15 rows."""
    ops, tensors, constants = list[Op](), {"input": Tensor("input", (30, 1, 40), "int8", Quant((0.05,), 3))}, {}
    rng, value = np.random.default_rng(0), "input"
    for number, (rows, channels) in enumerate(((3, 128), (5, 128), (10, 128), (15, 32))):
        for kind in ("depthwise", "point"):
            name, depth = f"{kind}{number}", tensors[value].shape[2]
            shape = (rows, 1, depth) if kind == "depthwise" else (channels, 1, 1, depth)
            out = depth if kind == "depthwise" else channels
            constants |= {f"{name}_w": rng.integers(-127, 128, shape).astype(np.int8)}
            constants |= {f"{name}_b": rng.integers(-999, 999, out).astype(np.int32)}
            own = {"weights": f"{name}_w", "bias": f"{name}_b", "weight_scale": (0.001,) * out}
            op = (
                DepthwiseConv(name, (value,), name, kernel=(rows, 1), **own)
                if kind == "depthwise"
                else Conv(name, (value,), name, **own)
            )
            ops.append(op)
            value = name
            shape = output_shape(Graph("wake", tuple(ops), tensors, constants, ("input",), ()), op)
            tensors[value] = Tensor(value, shape, "int8", Quant((0.05,), -3))
    return Graph("wake", tuple(ops), tensors, constants, ("input",), (value,))


def test_the_wake_word_keeps_what_its_windows_reach() -> None:
    plan = streaming.plan(wake_word())
    assert plan.macs == (45_944, 826_272)  # 96 of the published network are in its classifier
    kept = {layer.op: layer.kept.height for layer in plan.layers if layer.kept.height}
    assert kept == {"point0": 4, "point1": 9, "point2": 14}
    assert plan.state_bytes == 2 * 40 + (4 + 9 + 14) * 128
    assert plan.notes == ("depthwise3 sees all rows at once",)


def test_a_fast_stream_has_the_same_bytes() -> None:
    graph = wake_word()
    model = compile(graph, "nucleo_l4r5zi", passes=[Streaming()])
    frames, windows = streaming.sliding(model.graph, rows_of(graph, 4, 1, 6))
    memory.verify(model.steps.program, model.steps.arena)
    with model.open("host") as target:
        outputs = [target.push(frame, number).output for number, frame in enumerate(frames)]
    np.testing.assert_array_equal(np.stack(outputs[29:]), interpret.run_joined(graph, windows))


def test_padding_and_strides_are_named() -> None:
    padded = RandomStream(0, ("same",))
    source = padded._add(
        Conv("c", ("input",), "c", kernel=(3, 1), padding=(1, 1, 0, 0)), (2, 3, 1, padded.tensors["input"].shape[2]), 2
    )
    graph = Graph("padded", (padded.ops[-1],), padded.tensors, padded.constants, ("input",), (source,))
    (note,) = [note for note in streaming.plan(graph).notes if note.startswith("c ")]
    assert note == "c has padding, which reaches the first 1 and the last 1 rows: every window has these anew"
    strided = replace(graph.by_name["c"], stride=(2, 1), padding=(0, 0, 0, 0))  # type: ignore[call-arg]
    ops = [*graph.ops[:-1], strided]
    shape = output_shape(graph, strided)
    graph = graph.with_ops(ops, tensors=graph.tensors | {"c": replace(graph.tensors["c"], shape=shape)})
    assert streaming.plan(graph, 1).notes[-1] == "c moves by 2 rows where 1 arrive; pushes of 2 frames would stream on"
    assert streaming.plan(graph, 1).macs[0] == streaming.plan(graph, 1).macs[1] > streaming.plan(graph, 2).macs[0]


def test_what_is_no_stream_is_refused() -> None:
    graph = small()
    for frames in (0, graph.input.shape[0]):
        with pytest.raises(ValueError, match=r"frames is \d+, expected 1 to"):
            streaming.plan(graph, frames)
    streamed = streaming.streamed(graph)
    with pytest.raises(ValueError, match="is a stream already"):
        streaming.plan(streamed)
    with pytest.raises(ValueError, match="no stream"):
        streaming.Stream(graph)
    with pytest.raises(ValueError, match="push after push"):
        interpret.run(streamed, np.zeros((1, *streamed.input.shape), np.int8))
    with pytest.raises(ValueError, match="a stream, which runs layer by layer"):
        compile(graph, passes=[Streaming()], schedule=Partial())
    with pytest.raises(ValueError, match="expected at least 1"):
        Streaming(0)
    with pytest.raises(ValueError, match="leave one of them out"):
        Settings("lenet", method="partial", stream=1)


def test_measure_counts_one_push() -> None:
    graph = wake_word()
    images = np.random.default_rng(1).normal(size=(2, 40, 30, 1)).astype(np.float32)
    record = measure(compile(graph, passes=[Streaming()]), images, target="host")
    assert record.bit_exact and record.images == 31
    assert (record.macs_executed, record.macs_dense) == (45_944, 826_272)
    assert "stream: 1 row of 30 a push, 3,536 bytes kept between pushes, the first output at push 30" in record.notes


def test_the_checker_sees_a_state_that_is_overwritten() -> None:
    program, arena = memory.place_reference(streaming.streamed(wake_word()))
    state = next(name for name in program.graph.states if name.startswith("point0"))
    moved = replace(arena, offsets=arena.offsets | {name: arena.offsets[name] + 4 for name in (state, "point0_rows")})
    with pytest.raises(ValueError, match=r"no longer holds|bytes .* of an arena"):
        memory.verify(program, moved)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2002, 2004, 2009])
def test_a_stream_composes_with_skipping_and_with_single_rounding(seed: int) -> None:
    net = RandomStream(seed)
    graph = replace(net.graph(), rounding="single" if seed % 2 else "double")
    model = compile(graph, passes=[Skip(), Streaming(net.frames)])
    frames, windows = streaming.sliding(model.graph, rows_of(graph, 5, net.frames, seed))
    with model.open("host") as target:
        outputs = [target.push(frame, number).output for number, frame in enumerate(frames)][model.graph.pushes - 1 :]
    np.testing.assert_array_equal(np.stack(outputs), interpret.run_joined(graph, windows))
