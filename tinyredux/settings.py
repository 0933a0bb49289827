"""Named runs: what a command line asks for, with built-in networks, data and trained weights found by their names.

`Settings` turns the words of a command (`--method trec+partial --sram 20000`) into passes and a schedule for `flow.compile`.
"""

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from tinyredux import datasets, flow, nets
from tinyredux.codegen import KERNELS, Artifact, check_kernels
from tinyredux.datasets import Dataset
from tinyredux.files import check_types, expect, is_network_file, require, write_whole
from tinyredux.frontends import export
from tinyredux.graph import ROUNDINGS, Graph
from tinyredux.int8 import quantize
from tinyredux.measurement import Measurement
from tinyredux.memory import MemoryPlan
from tinyredux.methods import skip
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.partial import Partial
from tinyredux.methods.skip import Skip
from tinyredux.methods.streaming import Streaming
from tinyredux.methods.trec import NO_TREC, Trec, has_trec, is_tuned, with_trec_layers
from tinyredux.model import Model

CALIBRATION_IMAGES = 512
METHODS = {  # and their kernel sets, the usual one first
    "exact": ("fast", "reference"),
    "partial": ("reference", "fast"),
    "trec": ("fast", "reference", "naive"),
    "skip": ("fast", "reference"),
}


@dataclass(frozen=True)
class Settings:
    """What to measure and how. `data` None: CIFAR-10 where it is, else the synthetic set; random for other shapes. Chapter 1."""

    net: str
    method: str = "exact"  # or several of METHODS joined by +, such as trec+partial
    board: str = "disco_f469ni"
    target: str = "simulator"
    kernels: str | None = None  # None: the usual ones of the method
    sram: int | None = None  # largest arena with scratch in bytes; None: what the board leaves, for TREC `codegen.trec_bytes`
    images: int = 20
    data: str | None = None
    calibration: Path | None = None
    seed: int = 0
    trec: Path | None = None  # method trec: a table of layers; None: the fine-tuned network's, else where the cost model says so
    accumulator: str = "int32"  # method partial: width of partial sums; int16 is lossy
    mac_limit: float = 1.0  # method partial: above 1 early layers run in patches that compute shared rows again
    input_outside: bool = False  # method partial: the network's input lies behind the arena's other bytes
    rounding: str | None = None  # of a sum on its way to int8: double as TFLM, single as LiteRT; None: as the file's users expect
    skip: str | None = None  # method skip: FILE.json, or FRONT.json#N; None: the committed record of the network
    stream: int | None = None  # the input is a window that slides by so many rows a push; None: each run gets a whole window
    flash: int | str | None = None  # most bytes of code and constants; "board": all; None: 1.5 times those by reference kernels
    platformio: bool = False  # build with PlatformIO instead of the compiler alone: the same bytes

    def __post_init__(self) -> None:
        """Rejects what cannot be measured, naming what can."""
        check_types(self)
        if unknown := [name for name in self.methods if name not in METHODS]:
            part = f" in {self.method!r}" if len(self.methods) > 1 else ""
            raise ValueError(f"method is {unknown[0]!r}{part}, expected one of {', '.join(METHODS)}, or some of them joined by +")
        if len(self.methods) > 1 and (len(set(self.methods)) < len(self.methods) or "exact" in self.methods):
            raise ValueError(f"method is {self.method!r}; join by + different methods, each once, and exact with none")
        if check_kernels(self.kernel_set) not in self._kernel_sets:
            raise ValueError(f"method {self.method} has kernels {', '.join(self._kernel_sets)}, not {self.kernels}")
        for method, given, what in (
            ("trec", self.trec is not None, "a TREC table goes"),
            ("skip", self.skip is not None, "a record of skipping goes"),
            ("partial", self._partial != self._plain_partial, "accumulator, limit of MACs and an input apart go"),
        ):
            if given and method not in self.methods:
                raise ValueError(f"{what} with method {method}, not {self.method}")
        require(self.rounding in (None, *ROUNDINGS), f"rounding is {self.rounding!r}, expected one of {', '.join(ROUNDINGS)}")
        if self.stream is not None and Streaming(self.stream) and "partial" in self.methods:
            raise ValueError(
                f"stream is {self.stream} with method {self.method}: a stream runs layer by layer; leave one of them out"
            )
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}, expected 0 to {(1 << 32) - 1}")
        if self.images < 1:
            raise ValueError(f"images is {self.images}, expected at least 1")
        if self.target not in ("host", "simulator") and self.target.partition(":")[0] != "board":
            raise ValueError(f"target is {self.target!r}, expected host, simulator or board[:PORT]")

    @property
    def command(self) -> str:
        """The command that measures the same; options that have their default are left out."""
        words = ["python", "-m", "tinyredux", "measure", self.net]
        for field in fields(self)[1:]:
            name, value = f"--{field.name.replace('_', '-')}", getattr(self, field.name)
            if value != field.default and field.name != "platformio":  # which makes the same bytes
                words += [name] if value is True else [name, str(value)]
        return shlex.join(words)

    @property
    def kernel_set(self) -> str:
        """The kernels that compute the network, one of KERNELS."""
        return self._kernel_sets[0] if self.kernels is None else self.kernels

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, each by itself."""
        return tuple(self.method.split("+"))

    @property
    def schedule(self) -> Layerwise | Partial:
        """In which order, and in which parts, the network is computed."""
        return self._partial if "partial" in self.methods else Layerwise(self.sram, self.flash)

    @property
    def _partial(self) -> Partial:
        return Partial(self.sram, self.accumulator, self.mac_limit, self.input_outside, self.flash)

    @property
    def _plain_partial(self) -> Partial:
        return Partial(self.sram, flash=self.flash)

    @property
    def _kernel_sets(self) -> tuple[str, ...]:
        return METHODS[self.method] if len(self.methods) == 1 else KERNELS


@dataclass(frozen=True)
class Compiled:
    """A named network on its way to a board: the float graph (of a file its int8 one), the model, and the data."""

    graph: Graph
    model: Model
    data: Dataset

    @property
    def int8(self) -> Graph:
        """The int8 graph."""
        return self.model.graph

    @property
    def plan(self) -> MemoryPlan:
        """The memory plan."""
        return self.model.plan

    @property
    def artifact(self) -> Artifact:
        """The C text, weights and manifest."""
        return self.model.artifact


@dataclass(frozen=True)
class Network:
    """A named network before its passes: the int8 graph, the float graph that it comes from, if any, and the data.

    `skips`: its weights were tuned to be left out in part. `together`: they were tuned for all its TREC layers at once. `notes`
    say what a reader must know of its weights.
    """

    int8: Graph
    source: Graph | None
    data: Dataset
    skips: bool = False
    together: bool = False
    notes: tuple[str, ...] = ()


def network(settings: Settings) -> Network:
    """Returns a named network as an int8 graph: a module that is exported and quantised, or a file's as it is."""
    found = _of_file(settings) if is_network_file(settings.net) else _of_module(settings)
    return found if settings.rounding is None else replace(found, int8=replace(found.int8, rounding=settings.rounding))


def _of_file(settings: Settings) -> Network:
    for option in ("trec", "calibration"):
        given = getattr(settings, option)
        require(given is None, f"{option} is {given}, and {settings.net} is int8 already; leave --{option} out, or give a module")
    data, graph = nets.file_with_data(settings.net, settings.data, settings.seed)
    return Network(graph, None, data)


def _of_module(settings: Settings) -> Network:
    data, net = nets.with_data(settings.net, settings.data, settings.seed)
    methods = settings.methods
    if "trec" in methods:
        net = with_trec_layers(settings.net, net, data.name, settings.trec)
    alone = "skip" in methods and "trec" not in methods
    tuned = alone and skip.is_tuned(settings.net, data.name, settings.skip, settings.kernel_set)
    if tuned:
        from tinyredux.train import finetune_skip

        net = finetune_skip.load_skip(settings.net, data.name)
    graph = export(net, name=nets.short_name(settings.net))
    int8 = quantize(graph, datasets.calibration(data, settings.calibration, CALIBRATION_IMAGES))
    together = "trec" in methods and is_tuned(settings.net, data.name, settings.trec)
    left = nets.weights_file(settings.net, data.name) if ":" in settings.net and not (tuned or together) else None
    notes = (f"weights that `train` left for this data, {left.name}, in place of the factory's own",) if left else ()
    return Network(int8, graph, data, tuned, together, notes)


def compile_net(settings: Settings, given: Network | None = None) -> Compiled:
    """Returns a named network compiled for int8 inference; one that is `given`, from a module or arrays in memory, as it is.

    Raises ValueError for input that is wrong, saying what. Chapter 1.
    """
    expect(Settings, settings, "what to compile", "such as Settings('lenet')")
    named = given or network(settings)
    data, int8 = named.data, named.int8
    if settings.images > max(there := data.test.count, Settings.images):  # the usual number is what there is at most
        raise ValueError(f"images is {settings.images:,}, the test part of {data.name} has {there:,}; give at most so many")
    methods, kernels = settings.methods, settings.kernel_set
    datasets.check_labels(data.test, int8.output.elements)
    passes: list[flow.Pass] = []
    if "trec" in methods:
        sram = None if "partial" in methods else settings.sram
        passes.append(Trec(kernels=kernels, sram=sram, together=named.together))
    if "skip" in methods:
        passes.append(Skip() if named.skips else Skip(skip.record_of(settings.net, data.name, settings.skip), data))
    passes += [] if settings.stream is None else [Streaming(settings.stream)]
    model = flow.compile(
        int8, settings.board, passes=passes, schedule=settings.schedule, kernels=kernels, source=named.source,
        call=_call(settings, data.name),
    )  # fmt: skip
    if named.together and ":" not in settings.net and has_trec(int8) and not has_trec(model.graph):
        others = [name for name in methods if name != "trec"]  # weights used to means are for means; a user's are those there are
        exact = replace(settings, method="+".join(others) or "exact", trec=None, kernels=kernels)
        compiled = compile_net(exact)
        return replace(compiled, model=replace(compiled.model, notes=(*compiled.model.notes, NO_TREC)))
    return Compiled(named.source or int8, replace(model, notes=(*named.notes, *model.notes)), data)


def _call(settings: Settings, data: str) -> str:
    """Returns what the generated files say of their origin; files by name without folders, so that bytes are equal anywhere."""
    words = {
        "compile": Path(settings.net).name, "--method": settings.method, "--data": data,
        "--trec": settings.trec and settings.trec.name, "--skip": settings.skip and Path(settings.skip).name,
        "--rounding": settings.rounding, "--stream": settings.stream,
        "--sram": settings.sram, "--flash": settings.flash, "--kernels": settings.kernel_set,
        "--board": settings.board if settings.kernel_set == "fast" or "skip" in settings.methods else None,
    }  # fmt: skip
    call = " ".join(f"{name} {value}" for name, value in words.items() if value is not None)
    if settings.schedule not in (Layerwise(settings.sram, settings.flash), settings._plain_partial):
        apart = " --input-outside" * settings.input_outside
        call += f" --accumulator {settings.accumulator} --mac-limit {settings.mac_limit}{apart}"
    return call


def measure_net(settings: Settings) -> Measurement:
    """Returns the measurement of a named network: compiled, built, run on `settings.images` test images, compared. Chapter 1."""
    return measure_compiled(settings, compile_net(settings))


def measure_compiled(settings: Settings, compiled: Compiled) -> Measurement:
    """Returns the measurement of a compiled network, which `settings` describe. Chapter 4."""
    test = compiled.data.test.first(settings.images)
    record = flow.measure(
        compiled.model, test.images, test.labels, target=settings.target, data=compiled.data.name,
        platformio=settings.platformio,
    )  # fmt: skip
    method = settings.method if settings.accumulator == "int32" else f"{settings.method}-{settings.accumulator}"
    method = method if settings.stream is None else record.method
    command = replace(settings, data=settings.data or compiled.data.name).command
    return replace(record, net=settings.net, method=method, command=command, seed=settings.seed)


def write_artifact(settings: Settings, folder: Path | str) -> tuple[Artifact, list[str]]:
    """Writes the C, the weights, the manifest and `settings.images` test vectors; returns the Artifact and the file names.

    Test vectors: inputs.bin and outputs.bin, one image after the other, int8, as the model takes and gives them; of a stream the
    frames, and the outputs from the push on that fills the window.
    """
    expect(Path | str, folder, "the folder", "such as 'lenet_c'")
    folder, compiled = Path(folder), compile_net(settings)
    compiled.model.check_fit()
    frames, images = compiled.model.fed(compiled.data.test.first(settings.images).images)
    vectors = {"inputs.bin": np.stack(frames).tobytes(), "outputs.bin": compiled.model.expected(images).tobytes()}
    compiled.artifact.write(folder)
    for name, content in vectors.items():
        write_whole(folder / name, content)
    return compiled.artifact, sorted([*compiled.artifact.files, "weights.bin", "manifest.json", *vectors])
