"""Functions of the TREC operator: projections, hashing, adding up clusters, products and recovery."""

from __future__ import annotations

from tinyredux.kernels.trec.template import forms, naive_forms, point_fields, trec_fields

__all__ = ["forms", "naive_forms", "point_fields", "trec_fields"]
