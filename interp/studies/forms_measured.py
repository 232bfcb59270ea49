"""What a model knows of people in every form, and what answers questions inside it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.asking import accuracy_by_form, answers
from interp.attention.names import attention_scores
from interp.biographies import Batch, Corpus, Wordings
from interp.errors import NothingToMeasureError
from interp.interventions.swapped import swapped_people
from interp.memory.activations import cache_activations
from interp.memory.swap import swap_success

FORMS_ASKED: Mapping[str, tuple[str, Wordings]] = {
    "wording seen": ("biography", "train"),
    "wording unseen": ("biography", "evaluation"),
    "question": ("question", "evaluation"),
    "inverse": ("inverse", "evaluation"),
    "part": ("part", "evaluation"),
    "reordered name": ("reordered_name", "evaluation"),
}
"""In what everybody is asked: a form, in wordings that the person was trained in, or in others."""
TRAINED, BEFORE = "wording seen", "before"
GROUPS = ("asked", "others")
INSIDE = ("swap", "neurons", "heads")
_N_INSIDE = 256  # people whom the inside is measured on, at most


def accuracy(model: TransformerBridge, corpus: Corpus, n_asked: int) -> pd.DataFrame:
    """Accuracy and loss of everybody trained on, in every form.

    Args:
        model: A model of the corpus's tokens.
        corpus: The people; its tokenizer knows all forms.
        n_asked: Of the people trained on, about how many of the first questions were trained.

    Returns:
        Columns `group`, `form`, `attribute`, `accuracy` and `loss`.
    """
    n = corpus.population.config.n_individuals
    people = {"asked": slice(0, n_asked), "others": slice(n_asked, n)}
    parts = []
    for group in GROUPS:
        for name, (form, wordings) in FORMS_ASKED.items():
            found = answers(model, corpus, form, people[group], wordings=wordings)
            table = accuracy_by_form(found).assign(group=group, form=name)
            parts.append(table[["group", "form", "attribute", "accuracy", "loss"]])
    return pd.concat(parts, ignore_index=True)


def known_before(model: TransformerBridge, corpus: Corpus, n_asked: int) -> pd.DataFrame:
    """What the run that fine-tuning starts from knows in wordings seen: rows of `accuracy`, form "before"."""
    found = []
    n = corpus.population.config.n_individuals
    for group, people in (("asked", slice(0, n_asked)), ("others", slice(n_asked, n))):
        table = accuracy_by_form(answers(model, corpus, "biography", people, wordings="train"))
        found.append(table.assign(group=group, form=BEFORE))
    return pd.concat(found, ignore_index=True)[["group", "form", "attribute", "accuracy", "loss"]]


def inside(model: TransformerBridge, corpus: Corpus, n_asked: int) -> pd.DataFrame:
    """What carries the answers about people of whom no question was trained, in both forms.

    Returns:
        Columns `form` ("biography", "question"), `measure`, `layer`, `value`, `control`. Measures:

        "swap": the share of predictions that follow when the residual stream after the layer is
        swapped with another person's at all tokens of every name up to there; control: at as many
        text tokens.
        "neurons" (form "question"): cosine of a person's neuron activations at the last name token
        between both forms, the mean over people of each form taken off; control: between two people.
        "heads" (form "question"): correlation over the layer's heads of attention to the name between
        both forms, from the position that predicts an answer; control: with the heads in another
        order, the mean over all.
    """
    n = corpus.population.config.n_individuals
    people = np.arange(n_asked, n)[:_N_INSIDE]
    rows: list[tuple[str, str, int, float, float]] = []
    for form in ("biography", "question"):
        try:
            pairs = swapped_people(corpus, individuals=people, form=form)
        except NothingToMeasureError:
            continue
        swaps = swap_success(model, pairs, sites=("resid_post",))
        swaps = swaps[swaps["position"] == "every name"]
        for layer, follows, control in zip(
            swaps["layer"], swaps["follows"], swaps["control"], strict=True
        ):
            rows.append((form, "swap", int(layer), float(follows), float(control)))
    prose, asked = (
        corpus.sequences(people, form, "evaluation") for form in ("biography", "question")
    )
    neurons = [_neurons(model, batch) for batch in (prose, asked)]
    for layer in range(model.cfg.n_layers):
        same, other = _similarity(*(by_layer[layer] for by_layer in neurons))
        rows.append(("question", "neurons", layer, same, other))
    heads = [_attention(model, batch) for batch in (prose, asked)]
    for layer in range(model.cfg.n_layers):
        same, other = _correlation(*(by_head[layer] for by_head in heads))
        rows.append(("question", "heads", layer, same, other))
    return pd.DataFrame(rows, columns=["form", "measure", "layer", "value", "control"])


def _neurons(
    model: TransformerBridge, batch: Batch
) -> dict[int, Float[Tensor, "individual neuron"]]:
    """Neuron activations at the last token of names by layer, the mean over the sentences."""
    found = cache_activations(model, [batch], sites=[])
    place = found.positions.index("last name")
    return {layer: of[place, :, 0].nanmean(dim=0) for layer, of in found.neurons.items()}


def _similarity(
    one: Float[Tensor, "individual neuron"], other: Float[Tensor, "individual neuron"]
) -> tuple[float, float]:
    """Cosine of people's activations with their own in the other form, and with the next person's."""
    centred = [torch.nn.functional.normalize(x - x.mean(dim=0), dim=-1) for x in (one, other)]
    same = (centred[0] * centred[1]).sum(-1).mean()
    return float(same), float((centred[0] * centred[1].roll(1, 0)).sum(-1).mean())


def _attention(model: TransformerBridge, batch: Batch) -> Float[np.ndarray, "layer head"]:
    """Attention to the name from the position that predicts a value, of every head."""
    table = attention_scores(model, batch)
    table = table[table["metric"] == "attribute_to_name"]
    return table.pivot(index="layer", columns="head", values="value").to_numpy(dtype=float)


def _correlation(
    one: Float[np.ndarray, " head"], other: Float[np.ndarray, " head"]
) -> tuple[float, float]:
    """Correlation over heads, and its mean over all rotations of the heads but none."""
    if np.ptp(one) == 0 or np.ptp(other) == 0 or len(one) < 3:
        return float("nan"), float("nan")
    turned: list[float] = [
        float(np.corrcoef(one, np.roll(other, shift))[0, 1]) for shift in range(len(other))
    ]
    return turned[0], float(np.mean(turned[1:]))
