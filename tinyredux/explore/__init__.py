"""Many measurements at once: a search over all methods, single layers, whether and how a network fits, plans without building."""

__all__ = ["bench", "bench_record", "designs", "fit", "mlperf", "plans", "search", "study"]
