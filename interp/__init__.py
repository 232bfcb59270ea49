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
    from interp import circuits, plots
    from interp.asking import accuracy_by_form, answers, form_independence
    from interp.attention import attention_scores, attention_to_names, head_roles, knockout
    from interp.batch import run_batch
    from interp.biographies import Corpus, Spans, Texts
    from interp.config import Config
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
        promoted_logits,
        swaps,
    )
    from interp.memory.ask import ask
    from interp.memory.fact_prompt import FactPrompt
    from interp.memory.locate import locate_fact
    from interp.model import hooked_transformer
    from interp.model.adapters import LoraSpec, adapter_of, attach_adapter, load_adapter
    from interp.presets import preset
    from interp.pretrained import Series, load_model
    from interp.run import Run, finetuned
    from interp.training import train

_HOMES = {
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
    "Texts": "interp.biographies",
    "ablations": "interp.memory",
    "accuracy_by_form": "interp.asking",
    "adapter_of": "interp.model.adapters",
    "answers": "interp.asking",
    "as_array": "interp.interventions",
    "ask": "interp.memory.ask",
    "attach_adapter": "interp.model.adapters",
    "attention_scores": "interp.attention",
    "attention_to_names": "interp.attention",
    "attribution": "interp.interventions",
    "causal_trace": "interp.interventions",
    "circuits": "",
    "direct_logit_attribution": "interp.memory",
    "explore": "interp.maps.widget",
    "finetuned": "interp.run",
    "form_independence": "interp.asking",
    "head_roles": "interp.attention",
    "hooked_transformer": "interp.model",
    "knockout": "interp.attention",
    "load_adapter": "interp.model.adapters",
    "load_model": "interp.pretrained",
    "locate_fact": "interp.memory.locate",
    "logit_lens": "interp.memory",
    "measure_memory": "interp.memory",
    "patch": "interp.interventions",
    "path_patch": "interp.interventions",
    "plots": "",
    "preset": "interp.presets",
    "promoted_logits": "interp.memory",
    "swapped_people": "interp.interventions",
    "run_batch": "interp.batch",
    "swaps": "interp.memory",
    "train": "interp.training",
}

__all__ = [
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
    "Texts",
    "ablations",
    "accuracy_by_form",
    "adapter_of",
    "answers",
    "as_array",
    "ask",
    "attach_adapter",
    "attention_scores",
    "attention_to_names",
    "attribution",
    "causal_trace",
    "circuits",
    "direct_logit_attribution",
    "explore",
    "finetuned",
    "form_independence",
    "head_roles",
    "hooked_transformer",
    "knockout",
    "load_adapter",
    "load_model",
    "locate_fact",
    "logit_lens",
    "measure_memory",
    "patch",
    "path_patch",
    "plots",
    "preset",
    "promoted_logits",
    "run_batch",
    "swapped_people",
    "swaps",
    "train",
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
