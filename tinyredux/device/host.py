"""This computer as a target: the generated model as a shared library, with the plain C twins of the DSP instructions."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from tinyredux.device.target import Int8Array, RawMeasurement, repeated


class HostTarget:
    """A network's shared library (build.build_host), loaded. It proves arithmetic; it has no cycle counter."""

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

    def run(self, image: Int8Array) -> Int8Array:
        """Returns the output for one image (height, width, channels). Raises ValueError for another shape or dtype."""
        if image.shape != self._input_shape or image.dtype != np.int8:
            raise ValueError(f"the network takes int8 {self._input_shape}, found {image.dtype} {image.shape}")
        values = np.ascontiguousarray(image)
        ctypes.memmove(self._library.tr_input(), values.ctypes.data, values.nbytes)
        self._library.tr_model_run()
        return np.ctypeslib.as_array(self._library.tr_output(), self._output_shape).copy()

    def measure(self, image: Int8Array, repeats: int = 1) -> RawMeasurement:
        """Runs one image `repeats` times. Raises ValueError if two outputs differ."""
        return repeated(lambda: RawMeasurement(self.run(image)), repeats, "a kernel reads memory that nobody wrote")

    def close(self) -> None:
        """Nothing to release: the library stays loaded until the program ends."""
