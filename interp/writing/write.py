"""Writing facts into a model: keys, value vectors, and the equations between them, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import AnyTexts, Corpus, Texts, spans_of
from interp.errors import ArgumentError, listed, require_known, whole_number
from interp.model import require_normal_weights, require_own_weights, require_room
from interp.model.layout import require_wrapped
from interp.model.stream import post_norm, require_linear_stream
from interp.series import AnySeries, Device, as_series, corpus_of, models_at, steps_of
from interp.torch_state import default_state
from interp.writing.closed_form import Factors, in_turn, least_squares, regularised
from interp.writing.costs import Arithmetic
from interp.writing.edit import AttachedEdit, WeightEdit, weights_digest
from interp.writing.keys import Outputs, hook_out, output_place, read_outputs, second_moment
from interp.writing.rewrites import NewFact, Places, Rewrites
from interp.writing.targets import Targets, TargetSettings, find_targets

Method = Literal["rome", "memit"]
WEIGHT, KEPT, RIDGE = 100.0, 0.1, 1e-4
"""Defaults of `weight`, `kept` and `ridge` of `write_facts`."""
PREDICTS = "predicts value"


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that the equations need, for any choice among the subjects.

    Attributes:
        rewrites: What is to be written.
        layers: Where.
        positions: At which kinds of token.
        places: Which tokens these are.
        outputs: Keys and stream of the unchanged model; keys are of the first layer, the stream is that
            behind the last.
        targets: What is to be added at the last layer.
        moments: Regularised second moments of keys, by layer.
        base: `weights_digest` of the model.
    """

    rewrites: Rewrites
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    places: Places
    outputs: Outputs
    targets: Targets
    moments: dict[int, Float[Tensor, "in in"]]
    base: str


@default_state()
def write_facts(
    series: AnySeries,
    facts: Rewrites | Sequence[NewFact],
    layers: int | Sequence[int] | None = None,
    position: str | Sequence[str] | None = None,
    *,
    method: Method | None = None,
    step: int | None = None,
    corpus: Corpus | None = None,
    texts: AnyTexts | None = None,
    n_texts: int = 8,
    weight: float = WEIGHT,
    kept: float = KEPT,
    ridge: float = RIDGE,
    targets: TargetSettings | None = None,
    device: Device = None,
) -> WeightEdit:
    """Makes an edit of weights that holds new facts, in closed form. No model is changed yet.

    A key is what the MLP's output matrix reads at a place (`interp.writing.Places`): a token of the
    subject's name, or one that predicts a token of the new value. The value vector there is found by gradient
    descent on that activation alone; the change of the matrix that maps keys to value vectors follows from
    equations (`interp.writing.closed_form`). In several layers the residual is spread evenly, as in MEMIT:
    each layer is given its share of what is left, with keys read anew.

    Args:
        series: A run, models by step, or one model; any TransformerLens model with an MLP of one output
            matrix.
        facts: (person, attribute, new value) of a corpus; or `Rewrites`, as of facts of common knowledge.
        layers: The layer, or several (MEMIT only). By default, of people's facts, the last one (there
            `edit_scores` are best by far in runs of `tiny`); of other facts 0.
        position: The kind of token at which keys are read, out of `interp.biographies.POSITIONS`, or several
            kinds. By default, of people's facts in the last layer, "predicts value"; else "middle name" where
            names have one, else "last name".
        method: "rome": a rank-one change for each subject in turn, exact at its key; "memit": least squares
            over all subjects. By default "rome" for one subject in one layer.
        step: The checkpoint; the last by default.
        corpus: The people, where the series is no run.
        texts: The model's own text, for E[k kᵀ]; by default that of the rewrites (biographies).
        n_texts: Biographies of each person.
        weight: λ of MEMIT: how much other text counts against the new facts.
        kept: How much the subjects' other values count against the new ones (MEMIT, where values are
            predicted): the weight of each output there that is to stay.
        ridge: What is added to the diagonal of E[k kᵀ], as a part of its mean.
        targets: How value vectors are found.
        device: Where to compute.

    Raises:
        ArgumentError: an unknown layer, position, method, person or value; a layer without one output matrix;
            no output there that makes a new value more likely;
            something written there does not reach the prediction; several layers in a model with a norm
            behind its MLPs.
        RunError, CheckpointError: as of a person's name, and of a step.

    Source: Meng et al. 2022 (arXiv:2202.05262), Meng et al. 2023 (arXiv:2210.07229).

    Example:
        ```python
        edit = interp.write_facts(run, [("Wim Mireia Vasiliev", "university", "Oxford")])
        with edit.applied(model):
            interp.ask({0: model}, "Wim Mireia Vasiliev", corpus=run.corpus)
        ```
    """
    rewrites = (
        facts
        if isinstance(facts, Rewrites)
        else Rewrites.of_people(corpus_of(series, corpus), facts, n_texts=n_texts)
    )
    if texts is not None:
        rewrites = replace(rewrites, background=Texts(texts.tokens, spans_of(texts)))
    source = as_series(series)
    at = steps_of(source)[-1] if step is None else step
    models = models_at(source, [at], device)  # a patch of the run is on until it ends
    _, model = next(models)
    chosen, position = place_of(model, rewrites, layers, position)
    if method is None:
        method = "rome" if len(rewrites.subjects) == 1 and len(chosen) == 1 else "memit"
    require_known([method], get_args(Method), "method")
    if method == "rome" and len(chosen) > 1:
        raise ArgumentError(
            f"layers={list(chosen)}: rome changes one layer; give one, or take memit."
        )
    prepared = prepare(model, rewrites, chosen, position, targets, ridge=ridge)
    _require_found(prepared, targets or TargetSettings())
    return solve(model, prepared, range(len(rewrites.subjects)), method, weight, kept)


def _require_found(prepared: Prepared, settings: TargetSettings) -> None:
    """Refuses subjects for whom the search found nothing better than to write nothing."""
    found = prepared.targets.residuals.any(dim=1)
    losses = prepared.targets.losses
    for index, subject in enumerate(prepared.rewrites.subjects):
        written = bool(found[prepared.places.subject == index].any())
        if not written and float(losses[index]) >= settings.enough:
            where = " and ".join(map(repr, prepared.positions))
            raise ArgumentError(
                f"{subject}: no output of layer {prepared.layers[-1]} at {where} makes the new value more "
                f"likely (its loss stays at {losses[index]:.3g} nats), so an edit would change nothing. "
                "Give another layer or position, or other interp.writing.TargetSettings."
            )


def place_of(
    model: TransformerBridge,
    rewrites: Rewrites,
    layers: int | Sequence[int] | None,
    position: str | Sequence[str] | None,
) -> tuple[tuple[int, ...], str | Sequence[str]]:
    """Layers and position, those by default where they are None (see `write_facts`)."""
    people, last = rewrites.facts[0].individual is not None, int(cast(Any, model).cfg.n_layers) - 1
    if layers is None:
        late = people and set(listed(position or PREDICTS, "position")) == {PREDICTS}
        layers = last if late else 0
    chosen = _layers(layers)
    if position is None:
        position = PREDICTS if people and chosen == (last,) else name_position(rewrites)
    return chosen, position


def name_position(rewrites: Rewrites) -> str:
    """The middle name where every text has one token of it, else the last name."""
    try:
        rewrites.places("middle name")
    except ArgumentError:
        return "last name"
    return "middle name"


def prepare(
    model: TransformerBridge,
    rewrites: Rewrites,
    layers: Sequence[int],
    position: str | Sequence[str],
    settings: TargetSettings | None = None,
    *,
    ridge: float = RIDGE,
) -> Prepared:
    """Reads keys, finds value vectors and second moments; the model is left as it was."""
    require_wrapped(model)
    require_own_weights(model)
    require_normal_weights(model)
    remedy = "Give texts in tokens of the model's own tokenizer."
    for what, texts in (("facts", rewrites.texts), ("background", rewrites.background)):
        tokens = texts.tokens
        require_room(model, tokens.shape[1], int(tokens.max()), f"The texts of the {what}", remedy)
    places = [output_place(model, layer) for layer in layers]
    if len(layers) > 1:
        normed = [layer for layer in layers if post_norm(model, layer, "mlp") is not None]
        if normed:
            raise ArgumentError(
                f"layers={list(layers)}: a norm follows the MLP of layer {normed[0]}, so what several layers "
                "write does not add up. Give one layer."
            )
        require_linear_stream(model, layers)
    positions = tuple(listed(position, "position"))
    at = rewrites.places(positions)
    outputs = read_outputs(model, rewrites.texts, at.of_token, layers[-1], layers[-1])
    found = find_targets(
        model, rewrites, positions, hook_out(places[-1]), outputs.values.norm(dim=1),
        settings or TargetSettings(),
    )  # fmt: skip
    moments, count = {}, 0
    for layer in layers:
        moment, _ = second_moment(model, rewrites.background, layer)
        moments[layer] = regularised(moment, ridge)
        count += rewrites.background.tokens.numel()
    # The texts are read for keys, and again for those that are to stay.
    costs = found.costs + Arithmetic(forward_tokens=count + 2 * rewrites.texts.tokens.numel())
    return Prepared(
        rewrites, tuple(layers), positions, at, outputs, replace(found, costs=costs), moments,
        weights_digest(model),
    )  # fmt: skip


def solve(
    model: TransformerBridge,
    prepared: Prepared,
    subjects: Sequence[int],
    method: Method,
    weight: float = WEIGHT,
    kept: float = KEPT,
) -> WeightEdit:
    """The edit of some of the subjects; the model is left as it was."""
    chosen = list(subjects)
    places = prepared.places.of_subjects(chosen)
    residuals = prepared.targets.residuals[places]
    factors: dict[int, Factors] = {}
    if len(prepared.layers) == 1:
        (layer,) = prepared.layers
        outputs, moment = prepared.outputs.of_places(places), prepared.moments[layer]
        if method == "rome":
            factors[layer] = in_turn(outputs.keys.T, residuals.T, moment)
        else:
            rewrites = prepared.rewrites.of_subjects(chosen)
            stays = kept * _kept_moment(model, rewrites, prepared.positions, layer)
            factors[layer] = _least_squares(outputs, residuals, moment, weight, stays)
    else:
        factors = _spread(model, prepared, chosen, residuals, weight, kept)
    facts = prepared.rewrites.facts
    wanted = [
        f
        for s in chosen
        for f, of in zip(facts, prepared.rewrites.subject_of, strict=True)
        if of == s
    ]
    return WeightEdit(
        factors, tuple(wanted), method, ", ".join(prepared.positions), prepared.base,
        tuple(prepared.targets.losses[chosen].tolist()), prepared.targets.costs,
    )  # fmt: skip


def _least_squares(
    outputs: Outputs, residuals: Tensor, moment: Tensor, weight: float, stays: Tensor
) -> Factors:
    asked = outputs.moment + stays
    return least_squares(outputs.keys.T, residuals.T, moment, weight, asked)


def _kept_moment(
    model: TransformerBridge, rewrites: Rewrites, positions: Sequence[str], layer: int
) -> Tensor:
    """The sum of k kᵀ where outputs are to stay, over a text of each subject (mean over its texts)."""
    at = rewrites.kept_at(positions)
    found, number = at[at >= 0].unique(return_inverse=True)
    if not len(found):
        return torch.zeros(())
    numbered = at.clone()
    numbered[at >= 0] = number
    outputs = read_outputs(model, rewrites.texts, numbered, layer, layer)
    n_texts = torch.bincount(rewrites.subject)[found[outputs.place_of]].double()
    return outputs.mentions.T @ (outputs.mentions / n_texts[:, None])


def _spread(
    model: TransformerBridge,
    prepared: Prepared,
    chosen: list[int],
    residuals: Tensor,
    weight: float,
    kept: float,
) -> dict[int, Factors]:
    """MEMIT, section 4.3.2: each layer writes its share of what is left of the residual in the stream."""
    rewrites = prepared.rewrites.of_subjects(chosen)
    places = rewrites.places(prepared.positions).of_token
    last = prepared.layers[-1]
    wanted = prepared.outputs.stream[prepared.places.of_subjects(chosen)] + residuals
    factors: dict[int, Factors] = {}
    attached: list[AttachedEdit] = []
    try:
        for index, layer in enumerate(prepared.layers):
            now = read_outputs(model, rewrites.texts, places, layer, last)
            share = (wanted - now.stream) / (len(prepared.layers) - index)
            stays = kept * _kept_moment(model, rewrites, prepared.positions, layer)
            factors[layer] = _least_squares(now, share, prepared.moments[layer], weight, stays)
            attached.append(AttachedEdit(model, {layer: factors[layer]}))
    finally:
        for one in reversed(attached):
            one.undo()
    return factors


def _layers(given: int | Sequence[int]) -> tuple[int, ...]:
    several = [given] if not isinstance(given, Sequence) or isinstance(given, str) else given
    layers = tuple(sorted({whole_number(layer, "layers", 0) for layer in several}))
    if not layers:
        raise ArgumentError("layers is empty: name a layer.")
    return layers
