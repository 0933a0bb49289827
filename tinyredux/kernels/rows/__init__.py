"""Convolutions of many positions of a row at a time: the inputs of a strip are packed once, then multiplied."""

from __future__ import annotations

from tinyredux.kernels.rows.template import forms

__all__ = ["forms"]
