"""What notebooks show: figures, C cells, reports from records."""

__all__ = [
    "cell", "plots", "plots_labs", "plots_partial", "plots_redundancy", "plots_skipping", "show", "skip_report", "trec_report",
    "widgets",
]  # fmt: skip
