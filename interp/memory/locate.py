"""One fact under the microscope: where a model keeps it, who moves it, who reads it out.

Four positions matter: the tokens of the name and the position that predicts the value's first token.
Everything is measured on one logit difference: that of the true value's first token minus the mean over
the distinct first tokens of the attribute's other values, in nats. It does not grow as a model merely
learns that some city has to follow.

- Direct contributions (where the value is predicted): the final residual stream is a sum of
  embeddings, heads, MLPs and biases. With the scales of norms (the final one, and those after attention
  or an MLP, where a model has them) held at what they were in this pass, so is the logit difference.
- Contributions through attention (at a name token): what each part writes there, read by the heads of
  later layers with the attention that the predicting position paid to it in this pass, and written by
  them straight to the logits. Norm scales and patterns are held at what they were. Paths through a
  later MLP, or over a third position, are not in it: an effect of zero here does not say that a token
  does not matter. For that there are knockouts and swaps.

The neuron that contributes most is not where a fact is kept: in compiled models whose facts are spread over
random features, one of them often brings half of the logit difference (docs/trust.md).

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits" (direct and virtual
contributions); nostalgebraist 2020, "Interpreting GPT: the logit lens"; Geva et al. 2023 (subject
enrichment at the last name token, extraction by later heads).
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError, whole_number
from interp.memory.contributions import Contributions, Promoted, logit_lens, rank, require_whole
from interp.memory.fact_prompt import FactPrompt, worded
from interp.memory.located_fact import CONTEXTS, LocatedFact, require_one_of
from interp.memory.values import output_weights, promoted_by, promoted_logits
from interp.model import logits_at, measuring, pattern_hook, require_numbers
from interp.model.patterns import require_hooks
from interp.model.stream import require_linear_stream, require_uncapped
from interp.series import AnySeries, as_series, chosen_steps, corpus_of, models_at, steps_of
from interp.torch_state import default_state

_LARGEST_KEPT = 2**24
"""Logits that all neurons of a layer promote, at most, to be computed at once and kept for other facts."""


def locate_fact(
    series: AnySeries,
    person: SupportsIndex | str | FactPrompt,
    attribute: str | None = None,
    step: int | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    context: str = "first",
    top: int = 8,
    others: int = 64,
) -> LocatedFact:
    """Where one fact sits at one step: who moved the name, which neurons fired, who read it out.

    Args:
        series: A run, models by step, or another series (see `interp.series`).
        person: Of a run, whose fact: their index, their full name, or a part of it that nobody else has
            (see `Population.find`); held-out people are allowed (`LocatedFact.held_out`). Of any
            series, the fact as a text of yours: a `FactPrompt`, which says the rest itself.
        attribute: One of the population's (`run.population.attributes`), with _, - or spaces between words.
        step: The checkpoint; the last by default.
        wordings: "evaluation" for a template never seen with this person, "train" for one of the 20.
        draw: Another number gives another of these templates, and another order of sentences.
        context: "first" lets the fact's sentence come first, so that the name is read only once;
            "biography" leaves it at its drawn place, after the earlier sentences. Either way the text
            ends before the value.
        top: How many predictions, and how many neurons of each layer.
        others: How many people of a run, spread evenly over those it was trained on, the fact is shown
            beside (`LocatedFact.population`): one person may be read from another token than most.

    Raises:
        RunError: nobody has that name, several people have, or the run has no checkpoint.
        ArgumentError: a series without people of its own, or a model in which what is written into the
            residual stream does not add up to the logits (capped logits, a mixture of experts, ...).
        CheckpointError: there is no checkpoint at that step.

    Example:
        ```python
        fact = interp.locate_fact(run, "Wim Mireia Vasiliev", "university", step=300)
        fact.heads[fact.heads["at"] == "predicts value"]
        interp.plots.located_fact(fact).show()
        ```
    """
    steps = None if step is None else [step]
    asked = person if isinstance(person, FactPrompt) else (person, attribute)
    return locate_facts(series, [asked], steps, wordings, draw, context, top, others=others)[0]


@default_state()
def locate_facts(
    series: AnySeries,
    facts: Sequence[FactPrompt | tuple[SupportsIndex | str, str | None]],
    steps: Sequence[int] | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    context: str = "first",
    top: int = 8,
    history: Sequence[int] | None = None,
    others: int = 0,
) -> list[LocatedFact]:
    """Several facts at several steps, in the order given; each checkpoint is read once.

    Facts are prompts, of a run also pairs of a person and an attribute. `history` are checkpoints of
    `LocatedFact.history`, besides `steps`; all by default. Other arguments and errors as `locate_fact`.
    """
    require_one_of("wordings", wordings, ("train", "evaluation"))
    require_one_of("context", context, CONTEXTS)
    top, draw = whole_number(top, "top", 1), whole_number(draw, "draw", 0)
    others = whole_number(others, "others", 0)
    if not facts or (steps is not None and not len(steps)):
        raise ArgumentError("No fact or no step is named; give at least one of each.")
    texts = [
        fact if isinstance(fact, FactPrompt) else _of_person(series, *fact, wordings, draw, context)
        for fact in facts
    ]
    source = as_series(series)
    every = steps_of(source)
    chosen = [every[-1]] if steps is None else list(steps)
    visited = chosen_steps(source, [*chosen, *(every if history is None else history)])
    rows: list[list[tuple[int, float, float]]] = [[] for _ in texts]
    read: dict[tuple[int, int], dict[str, Any]] = {}
    people = {
        text.relation: _people(series, others, text.relation, wordings, draw, context)
        for text in texts
        if others and text.individual is not None
    }
    beside: dict[tuple[str, int], pd.DataFrame] = {}
    for step, model in models_at(source, visited):
        _require_room(model, texts)
        require_hooks(model, [pattern_hook(0)])
        require_uncapped(model)
        with measuring(model):
            for row, probabilities in zip(rows, _probabilities(model, texts), strict=True):
                row.append((step, *probabilities))
            if step in chosen:
                require_linear_stream(model, range(model.cfg.n_layers), range(model.cfg.n_layers))
                promoted = _promoter(model)
                for index, text in enumerate(texts):
                    read[index, step] = _read(model, text, top, promoted)
                for relation, prompts in people.items():
                    beside[relation, step] = _by_name_token(model, prompts)
    phases = source.known_phases
    result = []
    for index, text in enumerate(texts):
        table = pd.DataFrame(rows[index], columns=["step", "probability", "value_probability"])
        for step in chosen:
            at = table[table["step"] == step]
            result.append(
                LocatedFact(
                    **text.labels(), step=step,
                    value_probability=float(at["value_probability"].iloc[0]),
                    **read[index, step], history=table.copy(), phases=phases,
                    population=None if text.individual is None else beside.get((text.relation, step)),
                )
            )  # fmt: skip
    return result


def _require_room(model: TransformerBridge, texts: Sequence[FactPrompt]) -> None:
    """Checks that a model can read the texts and knows their tokens."""
    n_ctx, n_vocab = model.cfg.n_ctx, model.cfg.d_vocab
    for text in texts:
        longest, highest = text.start + text.length - 1, max(int(text.tokens.max()), *text.rivals)
        if longest > n_ctx or highest >= n_vocab:
            raise ArgumentError(
                f"The text that tells the {text.relation} of {text.name} has {longest} tokens and ids up "
                f"to {highest}; this model reads {n_ctx} tokens, with ids from 0 to {n_vocab - 1}. "
                "Give a shorter text, and ids of the model's own tokenizer."
            )


def _of_person(
    series: AnySeries,
    person: SupportsIndex | str,
    attribute: str | None,
    wordings: str,
    draw: int,
    context: str,
) -> FactPrompt:
    remedy = "people of its own. Give the fact as a text: FactPrompt.of_text"
    corpus = corpus_of(series, remedy=remedy)
    if attribute is None:
        raise ArgumentError(
            f"Which attribute of {person} is to be located? Give one of {', '.join(corpus.attributes)}."
        )
    return FactPrompt.of_person(corpus, person, attribute, wordings, draw, context)


def _probabilities(
    model: TransformerBridge, texts: Sequence[FactPrompt]
) -> list[tuple[float, float]]:
    """Of each text's value: the probability of its first token, and of all, given the text."""
    device = next(model.parameters()).device
    lengths = [text.length for text in texts]
    row = torch.arange(len(texts)).repeat_interleave(torch.tensor(lengths))
    position = torch.cat([torch.arange(t.start - 1, t.start + t.length - 1) for t in texts])
    targets = torch.cat([text.tokens[0, text.start : text.start + text.length] for text in texts])
    # What follows a text is not read.
    read = [text.tokens[0, : text.start + text.length - 1] for text in texts]
    tokens = pad_sequence(read, batch_first=True).to(device)
    logits = logits_at(model, tokens, row.to(device), position.to(device)).cpu()
    log_p = logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    parts = log_p.split(lengths)
    return [(float(part[0].exp()), float(part.sum().exp())) for part in parts]


def _flow(
    model: TransformerBridge, text: FactPrompt
) -> tuple[Contributions, Float[Tensor, "1 read vocab"], Any]:
    """One pass over the text: contributions, logits, and the activations that they are of."""
    layers = range(model.cfg.n_layers)
    names = ["hook_embed", *(pattern_hook(layer) for layer in layers)]
    if model.cfg.normalization_type is not None:
        names.append("ln_final.hook_scale")
    if "hook_pos_embed" in model.hook_dict or "pos_embed.hook_out" in model.hook_dict:
        names.append("hook_pos_embed")
    optional = ("hook_resid_mid", "ln1.hook_scale", "ln1_post.hook_scale", "ln2_post.hook_scale")
    for layer in layers:
        names += [
            f"blocks.{layer}.{point}"
            for point in (
                "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "ln1.hook_scale",
                "ln1_post.hook_scale", "ln2_post.hook_scale", "attn.hook_v", "attn.hook_z", "mlp.hook_post",
            )
            if point not in optional or f"blocks.{layer}.{point}" in model.hook_dict
        ]  # fmt: skip
    require_hooks(model, [name for name in names if name.startswith("blocks.")])
    device = next(model.parameters()).device
    logits, activations = model.run_with_cache(text.read.to(device), names_filter=names)
    # Of rotary positions TransformerLens lists the hook point and has nothing to show there.
    unseen = [n for n in names if n not in activations and n != "hook_pos_embed"]
    if unseen:
        raise ArgumentError(
            f"The model lists the hook point {unseen[0]!r} and never passes it, so contributions cannot be "
            "told (for attention: wrap the model with eager attention)."
        )
    return Contributions(model, activations, text, list(text.rivals)), logits, activations


def _people(series: AnySeries, n: int, relation: str, *choices: Any) -> list[FactPrompt]:
    """The same fact of up to `n` people of a run, spread evenly over those it was trained on."""
    corpus = corpus_of(series, remedy="people of its own")
    people, index = corpus.population, corpus.attributes.index(relation)
    told = np.flatnonzero(people.values[people.trained, index] >= 0)
    chosen = told[np.unique(np.linspace(0, len(told) - 1, min(n, len(told))).astype(int))]
    return [FactPrompt.of_person(corpus, int(one), relation, *choices) for one in chosen]


def _by_name_token(model: TransformerBridge, texts: Sequence[FactPrompt]) -> pd.DataFrame:
    """The table `LocatedFact.population`."""
    carried = pd.DataFrame([_flow(model, text)[0].from_name_tokens() for text in texts])
    most = carried.idxmax(axis=1).value_counts(normalize=True)
    rows = [(at, carried[at].mean(), most.get(at, 0.0), len(carried)) for at in carried]
    return pd.DataFrame(rows, columns=["at", "contribution", "share", "n_people"])


def _promoter(model: TransformerBridge) -> Promoted:
    """What some neurons promote: out of a whole layer's, which is kept; of a large model computed alone."""
    whole = cache(partial(promoted_logits, model))

    def promoted(layer: int, path: str, neurons: list[int]) -> Tensor:
        if output_weights(model, layer).shape[0] * model.cfg.d_vocab > _LARGEST_KEPT:
            return promoted_by(model, layer, path, neurons)
        return whole(layer, path)[neurons]

    return promoted


def _read(
    model: TransformerBridge, text: FactPrompt, top: int, promoted: Promoted
) -> dict[str, Any]:
    flow, logits, activations = _flow(model, text)
    prediction = logits[0, -1].double()
    require_numbers(prediction, "logits")
    rivals = list(text.rivals)
    difference = prediction[text.target] - prediction[rivals].mean()
    chances = prediction.softmax(-1)
    best = chances.topk(min(top, len(chances)))
    components = flow.components()
    require_whole(components, float(difference), logits.dtype)
    return {
        "probability": float(chances[text.target]),
        "rank": rank(prediction, text.target),
        "logit_difference": float(difference),
        "predictions": pd.DataFrame(
            {
                "rank": range(1, len(best.indices) + 1),
                "token": worded(text.word, best.indices.tolist()),
                "token_id": best.indices.tolist(),
                "probability": best.values.tolist(),
            }
        ),
        "attention": flow.attention(),
        "heads": flow.heads(),
        "components": components,
        "neurons": flow.neurons(top, promoted),
        "lens": logit_lens(model, activations, text, rivals),
    }
