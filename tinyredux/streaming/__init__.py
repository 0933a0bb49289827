"""Streaming: what two windows of a sliding input share is computed once, and every output keeps its bits.

A network of sound or motion looks at the last rows of its input again and again, while each time only a few are new. `slides`
says of each tensor by how many rows it moves and which of its rows all windows share; `plan` says which rows a push computes,
which are kept for later ones, and writes that as a graph of ordinary operators on fewer rows, whose states last from run to run;
`Stream` runs it in NumPy. What an operator makes of padding, or of all rows at once, no two windows share: `plan` says which
operators these are and computes them anew from the rows that are kept. Source: ours; for convolutions the fast algorithm of
Le Paine et al., arXiv 1611.09482. Chapter 15.
"""

from __future__ import annotations

from tinyredux.streaming.plan import Layer, Plan, Rows, plan, streamed
from tinyredux.streaming.run import Stream, sliding
from tinyredux.streaming.slides import Slide, slides

__all__ = ["Layer", "Plan", "Rows", "Slide", "Stream", "plan", "slides", "sliding", "streamed"]
