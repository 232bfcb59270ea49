"""A mechanistic-interpretability toolkit for watching a language model learn facts.

    run = interp.train(interp.preset("tiny", seed=1), "runs/tiny")
    run.phases                     # where statistics, plateau and knowledge meet
    model = run.model(step=250)    # a TransformerBridge with all its hooks

Names are loaded when first used, so that `interp --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from interp.process import keep_freed_memory, share_the_machine

if TYPE_CHECKING:
    from interp import circuits, equations, plots
    from interp.asking import accuracy_by_form, answers, form_independence
    from interp.attention import attention_scores, attention_to_names, head_roles, knockout
    from interp.batch import run_batch
    from interp.biographies import Corpus, Spans, Texts
    from interp.compiled import CompiledRecall, compile_recall, one_token_people, recall_capacity
    from interp.config import Config, stages_in_order
    from interp.contradictions import contradiction_table
    from interp.equations import interference, residuals
    from interp.errors import InterpError
    from interp.facts import Facts
    from interp.interventions import (
        Grid,
        Pairs,
        as_array,
        attribution,
        causal_trace,
        patch,
        path_patch,
        swapped_people,
    )
    from interp.maps.widget import explore
    from interp.memory import (
        ablations,
        direct_logit_attribution,
        logit_lens,
        measure_memory,
        memory_kind,
        promoted_logits,
        swaps,
    )
    from interp.memory.ask import ask
    from interp.memory.fact_prompt import FactPrompt
    from interp.memory.locate import locate_fact
    from interp.merging import (
        AdapterSwitch,
        TaskVector,
        add_adapters,
        barrier,
        loss_along_line,
        made_of,
        merge,
        save_merged,
        task_vector,
    )
    from interp.model import hooked_transformer
    from interp.model.adapters import LoraSpec, adapter_of, attach_adapter, load_adapter
    from interp.presets import preset
    from interp.pretrained import Series, load_model
    from interp.run import Run, finetuned
    from interp.training import train
    from interp.training.costs import costs_until_known, training_costs
    from interp.trust import trust_table
    from interp.writing import edit_scores, load_edit, write_facts

_HOMES = {
    "AdapterSwitch": "interp.merging",
    "CompiledRecall": "interp.compiled",
    "Config": "interp.config",
    "Corpus": "interp.biographies",
    "FactPrompt": "interp.memory.fact_prompt",
    "Facts": "interp.facts",
    "Grid": "interp.interventions",
    "InterpError": "interp.errors",
    "LoraSpec": "interp.model.adapters",
    "Pairs": "interp.interventions",
    "Run": "interp.run",
    "Series": "interp.pretrained",
    "Spans": "interp.biographies",
    "TaskVector": "interp.merging",
    "Texts": "interp.biographies",
    "ablations": "interp.memory",
    "accuracy_by_form": "interp.asking",
    "adapter_of": "interp.model.adapters",
    "add_adapters": "interp.merging",
    "answers": "interp.asking",
    "as_array": "interp.interventions",
    "ask": "interp.memory.ask",
    "attach_adapter": "interp.model.adapters",
    "attention_scores": "interp.attention",
    "attention_to_names": "interp.attention",
    "attribution": "interp.interventions",
    "barrier": "interp.merging",
    "causal_trace": "interp.interventions",
    "circuits": "",
    "compile_recall": "interp.compiled",
    "contradiction_table": "interp.contradictions",
    "costs_until_known": "interp.training.costs",
    "direct_logit_attribution": "interp.memory",
    "edit_scores": "interp.writing",
    "equations": "",
    "explore": "interp.maps.widget",
    "finetuned": "interp.run",
    "form_independence": "interp.asking",
    "head_roles": "interp.attention",
    "hooked_transformer": "interp.model",
    "interference": "interp.equations",
    "knockout": "interp.attention",
    "load_adapter": "interp.model.adapters",
    "load_edit": "interp.writing",
    "load_model": "interp.pretrained",
    "locate_fact": "interp.memory.locate",
    "logit_lens": "interp.memory",
    "loss_along_line": "interp.merging",
    "made_of": "interp.merging",
    "measure_memory": "interp.memory",
    "memory_kind": "interp.memory",
    "merge": "interp.merging",
    "one_token_people": "interp.compiled",
    "patch": "interp.interventions",
    "path_patch": "interp.interventions",
    "plots": "",
    "preset": "interp.presets",
    "promoted_logits": "interp.memory",
    "recall_capacity": "interp.compiled",
    "residuals": "interp.equations",
    "run_batch": "interp.batch",
    "save_merged": "interp.merging",
    "stages_in_order": "interp.config",
    "swapped_people": "interp.interventions",
    "swaps": "interp.memory",
    "task_vector": "interp.merging",
    "train": "interp.training",
    "training_costs": "interp.training.costs",
    "trust_table": "interp.trust",
    "write_facts": "interp.writing",
}

__all__ = [
    "AdapterSwitch",
    "CompiledRecall",
    "Config",
    "Corpus",
    "FactPrompt",
    "Facts",
    "Grid",
    "InterpError",
    "LoraSpec",
    "Pairs",
    "Run",
    "Series",
    "Spans",
    "TaskVector",
    "Texts",
    "ablations",
    "accuracy_by_form",
    "adapter_of",
    "add_adapters",
    "answers",
    "as_array",
    "ask",
    "attach_adapter",
    "attention_scores",
    "attention_to_names",
    "attribution",
    "barrier",
    "causal_trace",
    "circuits",
    "compile_recall",
    "contradiction_table",
    "costs_until_known",
    "direct_logit_attribution",
    "edit_scores",
    "equations",
    "explore",
    "finetuned",
    "form_independence",
    "head_roles",
    "hooked_transformer",
    "interference",
    "knockout",
    "load_adapter",
    "load_edit",
    "load_model",
    "locate_fact",
    "logit_lens",
    "loss_along_line",
    "made_of",
    "measure_memory",
    "memory_kind",
    "merge",
    "one_token_people",
    "patch",
    "path_patch",
    "plots",
    "preset",
    "promoted_logits",
    "recall_capacity",
    "residuals",
    "run_batch",
    "save_merged",
    "stages_in_order",
    "swapped_people",
    "swaps",
    "task_vector",
    "train",
    "training_costs",
    "trust_table",
    "write_facts",
]
__version__ = "0.1.0"


share_the_machine()
keep_freed_memory()

_MOVED = {"trace": "locate_fact"}


def __getattr__(name: str) -> object:
    if name in _MOVED:
        raise AttributeError(f"interp.{name} is now interp.{_MOVED[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(home), name) if home else import_module(f"interp.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
