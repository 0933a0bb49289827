"""This computer as a target: the generated model as a shared library, with the plain C twins of the DSP instructions."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from tinyredux.device.target import Int8Array, RawMeasurement, Target


class OutputEntry(ctypes.Structure):
    """An entry of tr_outputs, the table of a model with several outputs."""

    _fields_ = (("name", ctypes.c_char_p), ("values", ctypes.POINTER(ctypes.c_int8)), ("bytes", ctypes.c_uint32))


class HostTarget(Target):
    """A network's shared library (build.build_host), which stays loaded. It proves arithmetic; it has no cycle counter."""

    def __init__(self, library: Path, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        """Loads the library. Raises ValueError where the file is no generated model."""
        try:
            self._library = ctypes.CDLL(str(library))
            self._library.tr_input.restype = ctypes.POINTER(ctypes.c_int8)
            self._library.tr_output.restype = ctypes.POINTER(ctypes.c_int8)
            self._library.tr_model_run.restype = None
        except (OSError, AttributeError) as wrong:
            raise ValueError(f"{library} is no shared library of a generated model ({wrong}); build it with build_host") from None
        self._input_shape, self._output_shape = input_shape, output_shape

    def measure(self, image: Int8Array) -> RawMeasurement:
        """Returns the output for one image. Raises ValueError for another shape or dtype."""
        self._check(image)
        ctypes.memmove(self._library.tr_input(), image.tobytes(), image.nbytes)
        self._library.tr_model_run()
        return self._output()

    def _check(self, image: Int8Array) -> None:
        if image.shape != self._input_shape or image.dtype != np.int8:
            raise ValueError(f"the network takes int8 {self._input_shape}, found {image.dtype} {image.shape}")

    def push(self, frame: Int8Array, sequence: int) -> RawMeasurement:
        """Returns one run of a stream. Raises ValueError for a frame that is not the next one, or of another shape or dtype."""
        self._check(frame)
        if sequence == 0:
            self._library.tr_stream_restart()
        if sequence != (following := self._library.tr_stream_next()):
            raise ValueError(f"frame {sequence} came, the next one is {following}; begin again at 0")
        self._library.tr_push(frame.tobytes())
        return self._output()

    def _output(self) -> RawMeasurement:
        return RawMeasurement(outputs_of(self._library, int(np.prod(self._output_shape))).reshape(self._output_shape))


def outputs_of(library: ctypes.CDLL, count: int) -> Int8Array:
    """Returns the `count` values of a loaded model's output, or of all those in its table, one after the other."""
    if not hasattr(library, "tr_outputs"):
        return np.ctypeslib.as_array(library.tr_output(), (count,)).copy()
    table, parts = ctypes.pointer(OutputEntry.in_dll(library, "tr_outputs")), list[Int8Array]()
    while sum(map(len, parts)) < count:
        entry = table[len(parts)]
        parts.append(np.ctypeslib.as_array(entry.values, (entry.bytes,)))
    return np.concatenate(parts)
