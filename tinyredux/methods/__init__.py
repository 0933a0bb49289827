"""What each method adds to the flow: passes over the graph, or a schedule of its steps; and what a search may choose."""

__all__ = ["layerwise", "partial", "skip", "space", "streaming", "trec"]
