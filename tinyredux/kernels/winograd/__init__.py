"""Winograd convolution in exact integers: tiles of 4x4 or 6x6 inputs, fewer products for kernels of 3x3 and 5x5 with stride 1."""

from __future__ import annotations

from tinyredux.kernels.winograd.template import forms

__all__ = ["forms"]
