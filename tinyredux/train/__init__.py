"""Training, fine-tuning for a method, pruning for memory, and the records of the weights that come out.

`loop` trains one network; `finetune_trec` and `finetune_skip` train under a method, `prune` removes channels at the peak of
memory; `pretrained` joins them to the records beside the weights.
"""

from tinyredux.train.loop import Guide, Recipe, correct, given, predictions, recipe_for, shifted, teacher_of, train, use_cores

__all__ = [
    "Guide", "Recipe", "correct", "finetune_skip", "finetune_trec", "given", "predictions", "pretrained", "recipe_for",
    "shifted", "skip_search", "teacher_of", "train", "use_cores",
]  # fmt: skip
