"""Many measurements at once: a search over all methods, single layers, whether and how a network fits, plans without building."""

from typing import Any

from tinyredux.datasets import Dataset
from tinyredux.graph import Graph

__all__ = ["bench", "bench_record", "designs", "fit", "front", "mlperf", "plans", "search", "study"]


def front(graph: Graph, data: Dataset, **options: Any) -> dict[str, Any]:
    """Returns the Pareto front of an int8 graph in memory, as `study.explore`; `options` are fields of `study.Exploration`.

    Such as methods=("trec", "partial", "skip"), board="nucleo_l4r5zi", trials=60, storage="sqlite:///front.db". Needs optuna.
    Raises what `study.explore` raises. Chapter 12.
    """
    from tinyredux.explore.study import Exploration, explore
    from tinyredux.settings import Network

    return explore(Exploration(graph.name, network=Network(graph, None, data), **options))
