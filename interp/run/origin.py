"""What a run is beside a plain training on biographies, in sentences: for its page and its folder.

Other runs are named by the last part of their folder and by the fingerprint of their settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.config import Config, StageConfig
from interp.seeds import number_of

_WHOM = {
    "new": "people who were held out so far",
    "rare": "the rarest people",
    "same": "the same people",
}


def origin_sentences(config: Config, environment: Mapping[str, Any]) -> list[str]:
    """Where weights, patterns, people and texts of a run come from; nothing of a plain training.

    Args:
        config: The run's settings.
        environment: What `environment.json` records (`Run.environment`); may be empty.
    """
    found = [
        _merged(environment.get("merged") or []),
        _finetuned(config, environment.get("base") or {}),
        _patched(config, environment.get("reference") or {}),
        _told(config),
        _adapter(config),
        _selected(config),
        "The people and their wordings are the user's own." if config.population.people else "",
    ]
    return [sentence for sentence in found if sentence]


def kind_of_model(config: Config) -> str:
    """A transformer, or a recurrent model."""
    return "A transformer" if config.model.recurrence is None else "A recurrent model (RG-LRU)"


def _named(folder: str, fingerprint: str | None, step: int | None) -> str:
    words = [f"settings {fingerprint[:12]}"] if fingerprint else []
    words += [f"step {step:,}"] if step is not None else []
    return f"the run {Path(folder).name}" + (f" ({', '.join(words)})" if words else "")


def _merged(parts: list[dict[str, Any]]) -> str:
    if not parts:
        return ""
    terms = (
        f"{part['factor']:+g} × {_named(part['run'], part['config'], part['step'])}"
        for part in parts
    )
    return f"Its weights were not trained but added up: {', '.join(terms)}."


def _finetuned(config: Config, base: Mapping[str, Any]) -> str:
    finetuning = config.finetuning
    if finetuning.base is None:
        return ""
    step = base.get("step", finetuning.base_step)
    number = f"{config.n_finetuned:,} " if finetuning.people != "same" else ""
    replay = finetuning.replay_weight
    others = "" if replay is None else f", with replay of the others (weight {replay:g})"
    return (
        f"Fine-tuned: training started from {_named(finetuning.base, finetuning.base_run, step)}, on "
        f"{number}{_WHOM[finetuning.people or 'new']}{others}."
    )


def _patched(config: Config, reference: Mapping[str, Any]) -> str:
    patching = config.patching
    if not patching.on:
        return ""
    if patching.own or patching.reference is None:
        return "Trained with attention patching by its own patterns, the control."
    step = reference.get("step", patching.reference_step)
    begin = f" from step {patching.start:,} on" if patching.start else ""
    parts = "".join(
        f", {what} {' '.join(map(str, chosen))}"
        for what, chosen in (("layers", patching.layers), ("heads", patching.heads))
        if chosen is not None
    )
    source = _named(patching.reference, patching.reference_run, step)
    return f"Trained with the attention of {source}{begin}{parts}."


def _told(config: Config) -> str:
    stages = config.data.stages
    if config.compiled.on or not stages:
        return ""
    if len(stages) == 1:
        return f"Forms of text: {_stage(stages[0])}."
    said = "; ".join(f"from step {stage.start:,} {_stage(stage)}" for stage in stages)
    return f"Stages of training by form of text: {said}."


def _stage(stage: StageConfig) -> str:
    forms, adapter, _ = stage.label.partition(", adapter")
    return f"{forms} (training the adapter alone)" if adapter else forms


def _adapter(config: Config) -> str:
    adapter = config.adapter
    if not adapter.on:
        return ""
    sites = "all sites" if adapter.sites is None else ", ".join(adapter.sites)
    return (
        f"An adapter (LoRA, rank {adapter.rank}, at {sites}) stands beside the weights; at steps that train "
        "it the model is shown with it merged in."
    )


def _selected(config: Config) -> str:
    selection = config.selection
    if not selection.on:
        return ""
    kind = (selection.kind or "").replace("_", " ")
    times = f" of {number_of(selection.k, 'candidate')} a biography" if selection.k else ""
    contrast = f", contrast loss {selection.contrast:g}" if selection.contrast else ""
    return f"What is trained on was selected: {kind or 'everything'}{times}{contrast}."
