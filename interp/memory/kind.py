"""Which memory is it: facts in the weights of MLPs, or facts in the embeddings of people?

In an *associative* memory a person is a key, and an MLP maps it to values that nothing before the MLP
says. In a *geometric* memory the embedding says them all, in superposition; MLPs only select the one
that is asked for. Both recall the same facts. They are told apart by edits of pairs of people in the same
sentence, in which only the name differs, so that embeddings and MLPs contradict each other:

1. MLP outputs at name tokens are the other person's, the tokens stay ("names");
2. MLP outputs at all tokens are the other person's, the tokens stay ("everywhere").

Attention is not edited: it moves what embeddings and MLPs have written. A value that follows edit 1 comes
from MLPs at names; one that follows only edit 2 from MLPs at other tokens, after a head has read the name;
one that follows neither from the embeddings alone. Whether an MLP that decides looks the person up or
selects from what it reads, no swap tells. That is seen in its input: if all MLP outputs are those of one
and the same person, are people with the same value more alike than others (`alike_at_name`,
`alike_arriving`)? If so, the facts were there before the MLP.

Sources: Nichani, Lee & Bietti 2024 (arXiv:2412.06538) for associative, Ravfogel et al. 2026
(arXiv:2605.12426) for geometric memory; Geiger et al. 2021 for interchange interventions. The measure
is ours; `interp.compile_recall` makes models in which the answer is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import Corpus, SentenceForm, Spans
from interp.biographies.forms import BIOGRAPHY, form_number
from interp.errors import NothingToMeasureError, whole_number
from interp.interventions import (
    LOGIT_DIFFERENCE,
    METRICS,
    Grid,
    Pairs,
    first_value_tokens,
    patch,
    read_activations,
    resolve_positions,
    swapped_people,
)
from interp.interventions.metrics import Metric
from interp.interventions.sites import require_live_sites
from interp.interventions.swapped import paired
from interp.knowledge import measured_individuals
from interp.memory.confidence import area_under
from interp.model import measuring, of_this_thread
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, corpus_of, table_over_steps
from interp.torch_state import default_state

KIND_COLUMNS = (
    "n", "recalled", "mlp", "late", "together", "embeddings", "neither", "rest", "both", "control", "effect",
    "mlp_share", "late_share", "embeddings_share", "alike_at_name", "alike_arriving", "verdict",
)  # fmt: skip
"""The columns of `kind_of_memory`."""
Verdict = Literal["associative", "geometric", "mixed", "nothing recalled"]
DECIDES = 0.75
"""From which share of the recalled pairs on a kind of memory is what a model has."""
ALIKE = 0.75
"""From which area under the ROC curve on people with the same value count as alike: half-way between
0.5, where a value says nothing of who is alike, and 1."""
RECALLED = 0.25
"""With a smaller share of recalled pairs there is no verdict."""
RULE = (
    f"Nothing recalled: fewer than {RECALLED:.0%} of the pairs are. Else a pair counts as associative where "
    "it follows MLPs whose inputs do not say the value, as geometric where it follows embeddings, or MLPs "
    f"whose inputs say it (alike_at_name of MLPs at names, alike_arriving of others: {ALIKE:g} or more). "
    f"The verdict is what at least {DECIDES:.0%} of the recalled pairs are, or mixed."
)
"""How `verdict` decides, in words."""
_MOST_COMPARED = 512
_NAME_TOKENS = ("every first name", "every middle name", "every last name")
_CONSTANT = 1e-4  # differences below this share of an activation are rounding
_PREDICTED = "predicted"
_MEASURED: dict[str, Metric] = {
    **{name: METRICS[name] for name in ("follows", "stays", LOGIT_DIFFERENCE)},
    _PREDICTED: lambda logits, answers: logits.argmax(1).double(),
}


@dataclass(frozen=True)
class KindTexts:
    """The pairs that are swapped and compared, by attribute.

    Attributes:
        swapped: Two people with different values in the same sentence.
        strangers: For each pair a value of a third person: what chance would hit.
        compared: Everybody (base) in one sentence that is the same for all, each with one and the same
            person (source).
        values: The value of everybody who is compared, by its first token.
    """

    swapped: Mapping[str, Pairs]
    strangers: Mapping[str, Int[Tensor, " pair"]]
    compared: Mapping[str, Pairs]
    values: Mapping[str, Int[Tensor, " person"]]

    @classmethod
    def of(cls, corpus: Corpus, n: int = 192, seed: int = 0) -> "KindTexts":
        """Pairs of the known people of a corpus, `n` in all, about as many for each attribute.

        The name is mentioned once, in the first sentence, and that tells the value.

        Raises:
            NothingToMeasureError: of no attribute three known people have different values.
            ArgumentError: n is not positive.
        """
        first, has = first_value_tokens(corpus), corpus.population.values >= 0
        everybody = np.asarray(measured_individuals(corpus, "evaluation"))
        people = np.resize(everybody, whole_number(n, "n", 1)) if len(everybody) else everybody
        generator = np.random.default_rng([0x6B696E64, whole_number(seed, "seed", 0)])
        told = [
            (i, name)
            for i, name in enumerate(corpus.attributes)
            if len(np.unique(first[everybody[has[everybody, i]], i])) > 2
        ]
        found: dict[str, tuple[Pairs, Tensor, Pairs, Tensor]] = {}
        for turn, (i, name) in enumerate(told):
            chosen = people[turn :: len(told)]
            chosen = chosen[has[chosen, i]]
            if not len(chosen):
                continue
            pairs = swapped_people(
                corpus, individuals=chosen, attribute=name, place="first", seed=seed
            )
            pool = first[everybody[has[everybody, i]], i].numpy()
            compared, values = _compared(corpus, i, everybody[has[everybody, i]], first)
            strangers = _strangers(pairs, pool, generator)
            found[name] = _cut(pairs), strangers, _cut(compared), values
        if not found:
            raise NothingToMeasureError(
                "Of no attribute three known people have values that begin with different tokens, so nobody "
                "can be swapped with a control. Use a larger population, or more values."
            )
        parts = zip(*found.values(), strict=True)
        return cls(*(dict(zip(found, part, strict=True)) for part in parts))


def _cut(pairs: Pairs) -> Pairs:
    """Pairs without what comes after the last position that is read: five of six sentences."""
    end, source_end = int(pairs.read.max()) + 1, int(pairs.source_read.max()) + 1
    place = pairs.source_position[:, :end]
    return replace(
        pairs,
        base=pairs.base[:, :end],
        source=pairs.source[:, :source_end],
        spans=Spans(pairs.spans.kind[:, :end], pairs.spans.sentence[:, :end]),
        source_spans=Spans(
            pairs.source_spans.kind[:, :source_end], pairs.source_spans.sentence[:, :source_end]
        ),
        source_position=place.where(place < source_end, -1),
    )


def _strangers(
    pairs: Pairs, pool: Int[np.ndarray, " person"], generator: np.random.Generator
) -> Int[Tensor, " pair"]:
    """For each pair a value out of the pool that is neither's."""
    own = zip(pairs.base_answer.tolist(), pairs.source_answer.tolist(), strict=True)
    return torch.tensor([generator.choice(pool[~np.isin(pool, answers)]) for answers in own])


def _compared(
    corpus: Corpus,
    attribute: int,
    people: Int[np.ndarray, " person"],
    first: Int[Tensor, "individual attribute"],
) -> tuple[Pairs, Int[Tensor, " person"]]:
    """People in one and the same sentence, each with the first of them as the other; and their values."""
    form = cast(SentenceForm, corpus.form(BIOGRAPHY))
    people = people[:_MOST_COMPARED]
    order = np.array([attribute, *np.delete(np.arange(len(corpus.attributes)), attribute)])
    alike = np.tile(order, (len(people), 1)), np.zeros((len(people), len(order)), dtype=int)
    number = form_number(BIOGRAPHY)
    base = form.exactly(people, *alike, number)
    source = form.exactly(np.full_like(people, people[0]), *alike, number)
    return paired(base, source, np.full(len(people), attribute)), first[people, attribute]


@default_state()
def kind_of_memory(model: TransformerLensModel, texts: KindTexts) -> pd.DataFrame:
    """Which memory a model has, in one row.

    Returns:
        `n` (pairs that are recalled: the model tells both people's values apart where nothing is edited,
        and where all that names say is swapped) and `recalled` (their share of all pairs). Of the `n`, as
        shares that add up to 1: `mlp` (predictions that follow the MLPs at names), `late` (those that stay
        then, and follow when MLPs are swapped at all tokens), `together` (those that are neither's then,
        and follow when MLPs are swapped at all tokens: those at names and elsewhere hold the value
        together), `embeddings` (those that stay with the tokens both times), `neither` (the rest). `rest` is
        the share that stays when MLPs at names are swapped. `both`, of all pairs: predictions that follow
        when names themselves are swapped; `control`, of the `n`: that become a third person's value when
        MLPs at names are swapped.

        The same in logits, which are there before a prediction is right: `effect` (of swapping names, on
        the logit difference between the two values), and of it, adding up to 1, `mlp_share`, `late_share`
        and `embeddings_share`; NaN where the effect is less than two standard errors from 0.

        `alike_at_name` and `alike_arriving`: with the MLP outputs of one and the same person everywhere, how
        often two people with the same value are more alike than two with different ones, in the stream at
        a name token (first, middle or last: where it is most), and where the value is predicted (area under
        the ROC curve of the cosine similarity, mean over attributes; 0.5: a value says nothing). `verdict`
        by `RULE`.
    """
    rows = pd.concat([_swapped(model, texts, name) for name in texts.swapped], ignore_index=True)
    alike = [_alike(model, pairs, texts.values[name]) for name, pairs in texts.compared.items()]
    at_name, arriving = (_mean_told(column) for column in zip(*alike, strict=True))
    known = rows[rows["recalled"]]
    follows, stays = known["names_follows"] == 1, known["names_stays"] == 1
    everywhere = known["everywhere_follows"] == 1
    shares = {
        "mlp": follows,
        "late": stays & everywhere,
        "together": ~follows & ~stays & everywhere,
        "embeddings": stays & (known["everywhere_stays"] == 1),
        "rest": stays,
        "control": known["control"],
    }
    shares["neither"] = ~(shares["mlp"] | everywhere | shares["embeddings"])
    row: dict[str, Any] = {name: which.mean() for name, which in shares.items()}
    row |= {
        "n": len(known),
        "recalled": rows["recalled"].mean(),
        "both": rows["both_follows"].mean(),
    }
    row |= _effects(rows) | {"alike_at_name": at_name, "alike_arriving": arriving}
    return pd.DataFrame([row | {"verdict": verdict(row)}])[list(KIND_COLUMNS)]


def verdict(row: Mapping[str, Any]) -> Verdict:
    """What a row of `kind_of_memory` says, by `RULE`."""
    if not row["recalled"] >= RECALLED:
        return "nothing recalled"
    associative, geometric = kinds(row)
    if associative >= DECIDES:
        return "associative"
    return "geometric" if geometric >= DECIDES else "mixed"


def kinds(row: Mapping[str, Any] | pd.Series) -> tuple[float, float]:
    """The shares of the recalled pairs that are associative, and geometric, by `RULE`."""
    associative, geometric = 0.0, float(row["embeddings"])
    for of_mlps, alike in (("mlp", "alike_at_name"), ("late", "alike_arriving")):
        if row[alike] >= ALIKE:
            geometric += float(row[of_mlps])
        else:
            associative += float(row[of_mlps])
    return associative, geometric


@default_state()
def memory_kind(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n: int = 192,
    device: Device = None,
    seed: int = 0,
    *,
    corpus: Corpus | None = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """Which memory models have over training: associative (in MLPs) or geometric (in embeddings).

    Measured are `n` pairs of known people, those of a run or of `corpus`. With names of several tokens no
    single embedding is a person's, so that "embeddings" means what attention alone makes of name tokens.
    Columns `step`, then those of `kind_of_memory`; other arguments and errors as `series.over_steps`.

    Example:
        >>> import interp
        >>> compiled = interp.compile_recall(interp.preset("smoke"))
        >>> found = interp.memory_kind(compiled.model, corpus=compiled.corpus, n=24)
        >>> found["mlp"].item(), found["rest"].item(), found["verdict"].item()
        (1.0, 0.0, 'associative')
    """
    texts = KindTexts.of(corpus_of(series, corpus), n, seed)
    measure = partial(_of_model, texts=texts)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _of_model(model: TransformerBridge, texts: KindTexts) -> pd.DataFrame:
    return kind_of_memory(model, texts)


def _swapped(model: TransformerLensModel, texts: KindTexts, attribute: str) -> pd.DataFrame:
    """What each pair predicts after each edit: a row a pair."""
    pairs = texts.swapped[attribute]
    n_layers = model.cfg.n_layers
    names = resolve_positions(pairs, "every name")["every name"]
    masks = {"names": names, "everywhere": torch.ones_like(names)}
    # A window of twice the layers around any of them holds all.
    mlps = Grid("mlp_out", masks, [n_layers // 2], window=2 * n_layers)
    tables = [
        patch(model, pairs, grid, metrics=_MEASURED, per_pair=True)
        for grid in (mlps, Grid("resid_pre", {"both": names}, [0]))
    ]
    table = pd.concat(tables, ignore_index=True)
    table["what"] = table["position"] + "_" + table["metric"]
    rows = table.pivot(index="pair", columns="what", values="value")
    change = table[table["metric"] == LOGIT_DIFFERENCE]
    change = change.pivot(index="pair", columns="position", values="change")
    rows = rows.join(change.add_suffix("_change"))
    right = table[(table["metric"] == "stays") & (table["position"] == "both")]
    before = right.set_index("pair")["unpatched"]
    recalled = (before == 1) & (rows["both_follows"] == 1)
    control = rows[f"names_{_PREDICTED}"] == texts.strangers[attribute].numpy()
    return rows.assign(recalled=recalled, control=control)


def _effects(rows: pd.DataFrame) -> dict[str, float]:
    """What swapping names does to the logit difference, and how it adds up."""
    whole = rows["both_change"].to_numpy()
    error = whole.std(ddof=1) / np.sqrt(len(whole)) if len(whole) > 1 else np.inf
    effect = float(whole.mean())
    base = effect if abs(effect) > 2 * error else np.nan
    names, everywhere = rows["names_change"].mean(), rows["everywhere_change"].mean()
    return {
        "effect": effect,
        "mlp_share": names / base,
        "late_share": (everywhere - names) / base,
        "embeddings_share": (effect - everywhere) / base,
    }


def _mean_told(values: Sequence[float]) -> float:
    told = [value for value in values if not np.isnan(value)]
    return float(np.mean(told)) if told else float("nan")


def _alike(
    model: TransformerLensModel, pairs: Pairs, values: Int[Tensor, " person"]
) -> tuple[float, float]:
    """How alike people with the same value are without their MLPs: at names, and at the value."""
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = pairs.to(device)
    layers = range(model.cfg.n_layers)
    keys = [("mlp_out", layer) for layer in layers]
    require_live_sites(model, keys, pairs.base[:1])
    last = "resid_post", layers[-1]
    rows = torch.arange(len(pairs), device=device)
    masks = resolve_positions(pairs, _NAME_TOKENS).values()
    names = [mask.int().argmax(dim=1) for mask in masks if bool(mask.any(dim=1).all())]
    with measuring(model):
        # All sources are the same text.
        source = read_activations(model, pairs.source[:1], keys)
        there = (pairs.source_position >= 0)[..., None]
        counterpart = pairs.source_position.clamp(min=0)

        def replaced(activation: Tensor, hook: Any, layer: int) -> Tensor:
            others = source["mlp_out", layer][0][counterpart]
            return torch.where(there, others, activation).to(activation.dtype)

        hooks = of_this_thread(
            (f"blocks.{layer}.hook_mlp_out", partial(replaced, layer=layer)) for layer in layers
        )
        with cast(Any, model).hooks(fwd_hooks=hooks):
            stream = read_activations(model, pairs.base, [last])[last]
    found = [
        alikeness(stream[rows, at].float().cpu().numpy(), values.cpu().numpy())
        for at in (*names, pairs.read)
    ]
    return max(found[:-1]), found[-1]


def alikeness(
    vectors: Float[np.ndarray, "person d_model"], values: Int[np.ndarray, " person"]
) -> float:
    """How often two people with the same value are more alike than two with different ones.

    By the cosine similarity of their vectors, less the mean of all; ties count half. NaN where no two have
    the same value, or all have.

    Example:
        >>> vectors = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
        >>> alikeness(vectors, np.array([7, 7, 8, 8]))
        1.0
    """
    vectors = vectors.astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    least = _CONSTANT * np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.where(size > least, centred / np.maximum(size, 1e-300), 0.0)
    upper = np.triu_indices(len(values), k=1)
    similarity, same = (unit @ unit.T)[upper], (values[:, None] == values)[upper]
    if same.all() or not same.any():
        return float("nan")
    return area_under(similarity[same], similarity[~same])
