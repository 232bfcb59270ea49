"""Weights of several models in one: averages, task vectors, adapters; the loss along the line between two.

model = interp.merge([first, second])                    # runs, their folders, or models
vector = interp.task_vector(finetuned, base)
model = (0.5 * vector).apply(base)
run = interp.save_merged(model, "runs/merged")           # a run like any other
line = interp.loss_along_line(first, second)
interp.barrier(line)                                     # nats
"""

from interp.merging.adapters import AdapterSwitch, add_adapters
from interp.merging.combine import TaskVector, made_of, merge, task_vector
from interp.merging.line import barrier, loss_along_line
from interp.merging.saved import save_merged

__all__ = [
    "AdapterSwitch",
    "TaskVector",
    "add_adapters",
    "barrier",
    "loss_along_line",
    "made_of",
    "merge",
    "save_merged",
    "task_vector",
]
