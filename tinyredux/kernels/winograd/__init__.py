"""Winograd convolution F(2x2, 3x3) in exact integers: fewer multiplications for 3x3 kernels with stride 1."""

from __future__ import annotations

from tinyredux.kernels.winograd.template import forms

__all__ = ["forms"]
