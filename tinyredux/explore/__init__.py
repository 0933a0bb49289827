"""Many measurements at once: a search over all methods, single layers, plans without building."""

__all__ = ["bench", "bench_record", "designs", "plans", "search", "study"]
