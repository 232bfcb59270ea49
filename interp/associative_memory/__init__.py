"""The paper's toy associative memory: forgetting in fine-tuning, with no attention at all.

A hidden ReLU layer learns which of a few values belongs to each of many random keys, and is then
fine-tuned on new pairs, with or without replay of the old ones. Source: paper, Appendix Q and R.

Example:
    ```python
    from interp.associative_memory import AssociativeMemoryConfig, train

    run = train(AssociativeMemoryConfig(seed=1), "runs/memory")
    run.metrics                                     # accuracy and loss on old and new pairs
    run.movement()                                  # which keys and values fine-tuning moved
    out, cache = run.model().run_with_cache(run.pairs.keys)     # hook_pre, hook_post, hook_out
    ```
"""

from interp.associative_memory.config import (
    AssociativeMemoryConfig,
    MemoryFinetuningConfig,
    MemoryModelConfig,
    MemoryOptimizerConfig,
    PretrainingConfig,
)
from interp.associative_memory.model import AssociativeMemory, recall_logits, recall_loss
from interp.associative_memory.pairs import Pairs, finetuning_samples, pretraining_samples
from interp.associative_memory.run import AssociativeMemoryRun
from interp.associative_memory.training import changed_settings, expected_seconds, measure, train

__all__ = [
    "AssociativeMemory",
    "AssociativeMemoryConfig",
    "AssociativeMemoryRun",
    "MemoryFinetuningConfig",
    "MemoryModelConfig",
    "MemoryOptimizerConfig",
    "Pairs",
    "PretrainingConfig",
    "changed_settings",
    "expected_seconds",
    "finetuning_samples",
    "measure",
    "pretraining_samples",
    "recall_logits",
    "recall_loss",
    "train",
]
