"""What each method adds to the flow: passes over the graph, or a schedule of its steps."""

__all__ = ["layerwise", "partial", "skip", "streaming", "trec"]
