"""How much a model attends to names, template text, earlier facts: streaming attention scores.

A *score* is a share of attention: the post-softmax pattern, summed over a set of keys, averaged over
all queries of its kind whose set is not empty. Beside each stands its *chance*, what attention that
is uniform over the attendable tokens would give: the size of the set over their number, averaged over
the same queries.

Three kinds of query:

- `name_*`: the last name token of each sentence;
- `attribute_*`: the position that predicts the first token of a sentence's value, the one before it; or,
  where `read` is given, the position of each text that is read: prompts may end with it;
- the others: every token of template text.

The attendable tokens are those up to and including the query. Position 0 is `first_token` and nothing
else, whatever it holds: models park attention there that goes nowhere (give sequences that do not
start with a special token one, or the first token of a name at position 0 is not seen). A query there
has a single token to attend to and is left out.

The attendable tokens of an `attribute_*` query fall into seven disjoint sets, which add up to 1 for
every query (a query that is itself a punctuation or name token counts in its own set; not for the
means, as sets are empty for different queries): `attribute_to_name`, `_earlier_names`, `_text`,
`_earlier_text`, `_earlier_values`, `_first_token` and `_punctuation`.

Scores *of the rest* (`REST_METRICS`) leave the first token out: of the attention that does not go to it,
summed over the queries, the share that goes to the keys; chance likewise. On language models most heads
give most of their attention to the first token, and what they do with the rest shows here.

*Sharpness* is 1 - entropy / log(number of attendable tokens): 0 for uniform attention, 1 for attention
to one token. The paper reports the ratio itself, which falls where ours rises.

Of a layer that attends within a window (Mistral, Gemma), the attendable tokens are those of the window: a
query whose set of keys lies before it counts as one whose set is empty. Where heads can attend to nothing
(the attention sink of GPT-OSS), shares are of all that a head has to give, so that their sum is below 1, and
sharpness is that of what goes to tokens.

Source: Zucchet et al. 2025, Fig. 3 right and appendix F; of the first token Xiao et al. 2024, "Efficient
streaming language models with attention sinks".
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.attention.batches import TextsToRead, at_read, batches_of
from interp.biographies import AnyTexts, Spans, TokenKind
from interp.errors import ArgumentError, require_frame
from interp.interventions import Pairs
from interp.knowledge import Split
from interp.model import at_least_single, measuring, read_patterns, require_numbers
from interp.model.components import HookedBridge
from interp.model.layout import attention_window, has_attention_sink, require_wrapped
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, table_over_steps, texts_of
from interp.torch_state import default_state

NAME_METRICS = ("name_to_name", "name_to_first_token", "name_sharpness")
"""Scores of the last name token: to the other tokens of the same name, to position 0, sharpness."""
ATTRIBUTE_METRICS = (
    "attribute_to_name", "attribute_to_earlier_names", "attribute_to_any_name", "attribute_to_text",
    "attribute_to_type", "attribute_to_earlier_text", "attribute_to_earlier_values",
    "attribute_to_first_token", "attribute_to_punctuation", "attribute_sharpness",
)  # fmt: skip
"""Scores of the position that predicts the first token of a value: to the name of its sentence, to
names of other sentences before it, to both; to the template text of its sentence, to the words in it
that reveal the attribute; to template text and values elsewhere before it; to position 0; to
punctuation and special tokens of any sentence; sharpness."""
TEXT_METRICS = ("previous_token", "self_token", "text_to_first_token")
"""Scores of template text, independent of names: to the token before, to itself, to position 0."""
ATTENTION_METRICS = NAME_METRICS + ATTRIBUTE_METRICS + TEXT_METRICS
"""All scores, in the order of the tables."""
_RESTS = (("name_to_name",), ("attribute_to_any_name", "attribute_to_type"))
REST_METRICS = tuple(
    f"{metric}_of_rest" for metric in (*_RESTS[0], *_RESTS[1], "previous_token", "self_token")
)
"""Scores of the attention that does not go to the first token (the previous token where it is not the
first); after the others, in tables with them."""


@dataclass(frozen=True)
class Queries:
    """Some queries of a batch (`row` and `position`), and the attendable keys that each metric adds up.

    Metrics are those that are shares, in the order of `keys`; sharpness is none of them.
    """

    metrics: tuple[str, ...]
    row: Int64[Tensor, " read"]
    position: Int64[Tensor, " read"]
    keys: Bool[Tensor, "read metric key"]


def name_queries(spans: Spans) -> Queries:
    """The last name token of each sentence, with the keys of the `NAME_METRICS` that are shares."""
    sentence, row, position, attendable = _per_sentence(spans, spans.name_end)
    mine = spans.sentence[row] == sentence[:, None]
    first = _first(attendable)
    name = spans.is_kind(TokenKind.NAME)[row] & mine & attendable & ~first
    name[torch.arange(len(row), device=row.device), position] = False
    return Queries(NAME_METRICS[:-1], row, position, torch.stack([name, first], dim=1))


def attribute_queries(spans: Spans, read: Int64[Tensor, " text"] | None = None) -> Queries:
    """The positions that predict a first value token, with the keys of `ATTRIBUTE_METRICS`.

    Given `read`, they are these, one a text, in the sentence of the token after it (where the text ends
    there, its own).
    """
    if read is None:
        sentence, row, position, attendable = _per_sentence(spans, spans.predicts_first)
    else:
        sentence, row, position, attendable = at_read(spans, read)
    mine = (spans.sentence[row] == sentence[:, None]) & (sentence[:, None] >= 0)
    first = _first(attendable)
    later = attendable & ~first

    def keys(*kinds: TokenKind) -> Bool[Tensor, "read key"]:
        return spans.is_kind(*kinds)[row] & later

    name, type_ = keys(TokenKind.NAME), keys(TokenKind.TYPE)
    text = keys(TokenKind.TEXT, TokenKind.TYPE)
    by_metric = {
        "attribute_to_name": name & mine,
        "attribute_to_earlier_names": name & ~mine,
        "attribute_to_any_name": name,
        "attribute_to_text": text & mine,
        "attribute_to_type": type_ & mine,
        "attribute_to_earlier_text": text & ~mine,
        "attribute_to_earlier_values": keys(TokenKind.VALUE),
        "attribute_to_first_token": first,
        "attribute_to_punctuation": keys(TokenKind.PUNCTUATION, TokenKind.SPECIAL),
    }
    return Queries(tuple(by_metric), row, position, torch.stack([*by_metric.values()], dim=1))


def sharpness(
    pattern: Float[Tensor, "*more key"], n: Int[Tensor, "*more"]
) -> Float[Tensor, "*more"]:
    """1 - entropy / log n of attention distributions: 0 is uniform, 1 is one token.

    `pattern` is 0 at keys that cannot be attended to; `n` is the number of those that can, at least 2.

    Example:
        >>> sharpness(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([2, 2])).tolist()
        [0.0, 1.0]
    """
    if (n < 2).any():
        raise ArgumentError(
            f"n={int(n.min())}: attention is sharp or not where there are at least 2 tokens to attend to."
        )
    return _sharpness(pattern, n)


def _sharpness(
    pattern: Float[Tensor, "*more key"], n: Int[Tensor, "*more"]
) -> Float[Tensor, "*more"]:
    pattern = at_least_single(pattern)
    entropy: Tensor = torch.special.entr(pattern).sum(-1)
    return 1 - entropy / n.to(pattern.dtype).log()


@default_state()
def attention_scores(
    model: TransformerLensModel,
    texts: TextsToRead,
    *,
    read: Int64[Tensor, " text"] | None = None,
    sink: bool | None = None,
) -> pd.DataFrame:
    """The attention scores of every head of a model with causal attention.

    Args:
        model: Any TransformerLens model.
        texts: What it reads. Of `Pairs` both sides, at the positions that they read. Batches of token ids
            [batch, position], each with its spans (and with the positions that are read, as a third),
            are read one after the other and only sums are kept, so that memory does not grow with their
            number.
        read: Of each text the position that predicts the answer: the query of `attribute_*`, for prompts
            that end before the answer. By default the positions before values.
        sink: Also the `REST_METRICS`, by which `head_roles` sets the first token aside. By default for
            models other than those of `hooked_transformer`.

    Returns:
        Columns `layer`, `head`, `metric` (`ATTENTION_METRICS`, then `REST_METRICS`), `value` (share of
        attention, or sharpness) and `chance` (what uniform attention gives). Both are NaN for a metric
        that no query has keys for. Of whole kinds of query, and of what decides roles, a warning says so.

    Raises:
        ArgumentError: no batch, tokens and spans of different shapes, a position out of range, or a model
            without the hook points or without causal attention.
    """
    batches = (_Occurrences.of(*batch) for batch in batches_of(texts, read))
    table, counts = _scores_of(model, batches, sink)
    _warn_of_missing(counts, stacklevel=4)
    return table


@default_state()
def attention_to_names(
    series: AnySeries,
    steps: Sequence[int] | None = None,
    n_individuals: int | None = 512,
    split: Split = "evaluation",
    batch_size: int = 64,
    device: Device = None,
    *,
    texts: AnyTexts | Pairs | None = None,
    read: Int64[Tensor, " text"] | None = None,
    sink: bool | None = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """The attention scores of heads over training: columns `step`, then those of `attention_scores`.

    Read are `texts`, or the biographies of a run's split, of `n_individuals` people (None: all); see
    `knowledge.split_batch`. `read` and `sink` as in `attention_scores`, other arguments and errors as
    `series.over_steps`. A run of the main job holds this table already:
    `run.result("attention", "scores")` reads it in milliseconds.
    """
    found = texts if isinstance(texts, Pairs) else texts_of(series, texts, split, n_individuals)
    # Which keys belong to which query is the same at every step.
    batches = [_Occurrences.of(*batch) for batch in batches_of(found, read, batch_size)]
    if texts is not None:
        counts = torch.stack([batch.counts.cpu() for batch in batches]).sum(0)
        _warn_of_missing(counts, stacklevel=4)
    measure = partial(_table_of, batches=batches, sink=sink)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores with heads averaged: the same columns but `head`."""
    return _mean_without(table, ["head"])


def averaged(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores averaged over heads and layers: the same columns but `layer` and `head`."""
    return _mean_without(table, ["layer", "head"])


def _mean_without(table: pd.DataFrame, dropped: list[str]) -> pd.DataFrame:
    require_frame(table, "attention scores")
    missing = [column for column in (*dropped, "value", "chance") if column not in table]
    if missing:
        raise ArgumentError(
            f"This is not a table of attention scores per head: it has no column {missing[0]!r}. "
            f"Columns: {', '.join(map(str, table.columns))}."
        )
    keys = [c for c in table.columns if c not in (*dropped, "value", "chance")]
    means = table.groupby(keys, sort=False, dropna=False)[["value", "chance"]].mean()
    return means.reset_index()


def _per_sentence(
    spans: Spans, positions: Int64[Tensor, "batch sentence"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries at one position a sentence: sentence, row, position, and who can be attended to.

    Left out: sentences without the position (-1), and position 0, which attends to itself alone.
    """
    row, sentence = (positions > 0).nonzero(as_tuple=True)
    position = positions[row, sentence]
    places = torch.arange(spans.kind.shape[1], device=row.device)
    return sentence, row, position, places <= position[:, None]


def _warn_of_missing(counts: Float[Tensor, " score"], stacklevel: int) -> None:
    """Says which scores are NaN that every text could have, and why: whole kinds, and what makes roles."""
    count = dict(zip(ATTENTION_METRICS, counts.tolist(), strict=True))
    reasons = (
        (NAME_METRICS, "no sentence has a name that ends after the first token"),
        (ATTRIBUTE_METRICS, "no text has a value after its second token; give read=, the positions that "
         "predict the answers, or interp.Pairs, which have them"),
        (TEXT_METRICS, "no token after the first is template text"),
        (("name_to_name",), "no name has two tokens after the first token"),
        (("attribute_to_any_name",), "no name stands before the answers"),
        (("attribute_to_type",), "no words before the answers are marked as telling the relation (types)"),
    )  # fmt: skip
    said: dict[str, str] = {}
    for metrics, reason in reasons:
        if not any(count[metric] for metric in metrics):
            said |= {metric: reason for metric in metrics if metric not in said}
    if said:
        by_reason = {reason: [m for m in said if said[m] == reason] for reason in said.values()}
        words = (f"{', '.join(metrics)} ({reason})" for reason, metrics in by_reason.items())
        warnings.warn(f"Scores are NaN: {'; '.join(words)}.", stacklevel=stacklevel)


def _first(attendable: Bool[Tensor, "read key"]) -> Bool[Tensor, "read key"]:
    return (torch.arange(attendable.shape[1], device=attendable.device) == 0).expand_as(attendable)


@dataclass(frozen=True)
class _Occurrences:
    """The queries and keys of one batch in the form that patterns are reduced with.

    Sums over queries are products in float64, so that the order of batches makes no difference
    that can be seen.
    """

    tokens: Int[Tensor, "batch position"]
    names: tuple[Tensor, Tensor, Tensor]
    """Rows [query], positions [query] and keys [query key metric] of the `name_queries`."""
    attributes: tuple[Tensor, Tensor, Tensor]
    text: Float[Tensor, "batch position"]
    counts: Float[Tensor, " score"]
    """Per metric, the number of queries whose set of keys is not empty."""
    chances: Float[Tensor, " score"]
    """Per metric, the sum of their chances."""
    rest_chances: Float[Tensor, "2 rest"]
    """Per metric of the rest, the sum of the shares of its keys, and of all but the first token."""

    @classmethod
    def of(cls, tokens: Tensor, spans: Spans, read: Tensor | None = None) -> "_Occurrences":
        if tokens.shape != spans.kind.shape:
            raise ArgumentError(
                f"tokens have the shape {tuple(tokens.shape)}, but the spans describe "
                f"{tuple(spans.kind.shape)}; both are [batch, position]."
            )
        spans = spans.to(tokens.device)
        queries = name_queries(spans), attribute_queries(spans, read)
        text = spans.is_kind(TokenKind.TEXT, TokenKind.TYPE).double()
        text[:, :1] = 0  # a query at position 0 attends to itself alone
        groups = [(q.row, q.position, q.keys.transpose(1, 2).double()) for q in queries]
        return cls(tokens, groups[0], groups[1], text, *_expected(groups[0], groups[1], text))

    def expected(self, window: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """`counts`, `chances`, `rest_chances` in a layer that attends to `window` tokens (None: to all)."""
        if window is None or window >= self.tokens.shape[1]:
            return self.counts, self.chances, self.rest_chances
        return _expected(self.names, self.attributes, self.text, window)

    def to(self, device: torch.device | str) -> "_Occurrences":
        def moved(part: Any) -> Any:
            return tuple(map(moved, part)) if isinstance(part, tuple) else part.to(device)

        return _Occurrences(*(moved(getattr(self, field.name)) for field in fields(self)))

    def reduce(
        self,
        pattern: Float[Tensor, "batch head query key"],
        window: int | None = None,
        *,
        sink: bool = False,
    ) -> Float[Tensor, "head score"]:
        """Per head and metric, the sum of shares (and sharpness) over all queries."""
        sums = []
        window = pattern.shape[-1] if window is None else window
        for row, position, keys in (self.names, self.attributes):
            read = pattern[row, :, position].double()  # [read head key]
            sums.append(torch.bmm(read, keys).sum(0))
            n = (position + 1).clamp(max=window)[:, None].expand(read.shape[:2])
            if sink:  # how sharp that is what goes to tokens
                total = read.sum(-1, keepdim=True)
                read = read / total.masked_fill(total == 0, 1)
            sums.append(_sharpness(read, n).sum(0)[:, None])
        here = pattern.diagonal(dim1=-2, dim2=-1)
        before = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
        at_start = pattern[..., 0]
        for read, text in ((before, self.text[:, 1:]), (here, self.text), (at_start, self.text)):
            sums.append(torch.einsum("bhq,bq->h", read.double(), text)[:, None])
        return torch.cat(sums, dim=1)

    def reduce_rest(
        self, pattern: Float[Tensor, "batch head query key"], window: int | None = None
    ) -> Float[Tensor, "2 head rest"]:
        """Per head and metric of the rest, the attention to its keys, and to all but the first token."""
        found = []
        groups = ((self.names, NAME_METRICS), (self.attributes, ATTRIBUTE_METRICS))
        for ((row, position, keys), metrics), chosen in zip(groups, _RESTS, strict=True):
            read = pattern[row, :, position].double()  # [read head key]
            if window is not None:
                places = torch.arange(keys.shape[1], device=keys.device)
                keys = keys * (position[:, None] - places < window)[..., None]
            mine = keys[..., [metrics.index(metric) for metric in chosen]]
            # Summed, not 1 - share of the first token, which may be all but 1.
            left = torch.einsum("rh,rm->hm", read[..., 1:].sum(-1), mine.any(1).double())
            found.append(torch.stack([torch.bmm(read, mine).sum(0), left]))
        rest = pattern[..., 1:].sum(-1, dtype=torch.float64)  # [batch head query]
        here = pattern.diagonal(dim1=-2, dim2=-1)
        before = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
        for read, start in ((before[..., 1:], 2), (here[..., 1:], 1)):
            both = torch.stack([read.double(), rest[..., start:]])
            found.append(torch.einsum("sbhq,bq->sh", both, self.text[:, start:])[..., None])
        return torch.cat(found, dim=2)


def _expected(
    names: tuple[Tensor, Tensor, Tensor],
    attributes: tuple[Tensor, Tensor, Tensor],
    text: Float[Tensor, "batch position"],
    window: int | None = None,
) -> tuple[Float[Tensor, " score"], Float[Tensor, " score"], Float[Tensor, "2 rest"]]:
    """Per metric, how many queries have keys to attend to, and the sum of their chances.

    And of the rest, the sums of the chances of its keys, and of all but the first token.
    """
    n_text, n_first = text.sum(), text.sum()
    # Of the tokens up to position p, p + 1, each of the three sets has one.
    places = torch.arange(text.shape[1], device=text.device)
    attendable, first_seen = places + 1, torch.ones_like(text[0])
    of_text = of_first = (text / attendable).sum()
    if window is not None:
        attendable = attendable.clamp(max=window)
        first_seen = (places < window).double()
        near = text * (places < window)
        of_text, of_first, n_first = (
            (text / attendable).sum(),
            (near / attendable).sum(),
            near.sum(),
        )
    counts, chances, rests = [], [], []
    groups = ((names, NAME_METRICS), (attributes, ATTRIBUTE_METRICS))
    for ((_, position, keys), metrics), chosen in zip(groups, _RESTS, strict=True):
        if window is not None:
            keys = keys * (position[:, None] - places < window)[..., None]
        sizes = keys.sum(1)
        counts += [(sizes > 0).sum(0), sizes.new_tensor([len(sizes)])]  # sharpness: all
        shares = sizes / attendable[position, None].double()
        chances += [shares.sum(0), shares.new_zeros(1)]
        for column in map(metrics.index, chosen):
            has_keys = position[sizes[:, column] > 0]
            left = 1 - first_seen[has_keys] / attendable[has_keys].double()
            rests.append(torch.stack([shares[:, column].sum(), left.sum()]))
    for start in (2, 1):  # who attends to a token before that is not the first; to itself
        queried, of = text[:, start:], attendable[start:].double()
        left = queried * (1 - first_seen[start:] / of)
        rests.append(torch.stack([(queried / of).sum(), left.sum()]))
    return (
        torch.cat([*counts, n_text.expand(2), n_first.expand(1)]).double(),
        torch.cat([*chances, of_text.expand(2), of_first.expand(1)]),
        torch.stack(rests, dim=1),
    )


def _windows(model: TransformerLensModel) -> list[int | None]:
    """To how many tokens each layer attends; see `attention_window`."""
    windows = [attention_window(model, layer) for layer in range(model.cfg.n_layers)]
    narrow = [layer for layer, window in enumerate(windows) if window is not None and window < 2]
    if narrow:
        raise ArgumentError(
            f"Layer {narrow[0]} attends to {windows[narrow[0]]} token at a time; there is nothing to measure "
            "where a query sees itself alone."
        )
    return windows


def _require_within(
    pattern: Float[Tensor, "batch head query key"], layer: int, window: int | None
) -> None:
    if window is None or window >= pattern.shape[-1]:
        return
    if (pattern.tril(-window) > 0).any():
        raise ArgumentError(
            f"Layer {layer} attends further back than the {window} tokens that its configuration says, so "
            "what chance is there is not known."
        )


def _table_of(
    model: TransformerLensModel, batches: "Iterable[_Occurrences]", sink: bool | None
) -> pd.DataFrame:
    return _scores_of(model, batches, sink)[0]


def _scores_of(
    model: TransformerLensModel, batches: "Iterable[_Occurrences]", sink: bool | None
) -> tuple[pd.DataFrame, Float[Tensor, " score"]]:
    """The table, and per metric the number of queries whose set of keys is not empty in some layer."""
    require_wrapped(model)
    if sink is None:
        sink = not isinstance(model, HookedBridge)
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    direction = getattr(model.cfg, "attention_dir", "causal")
    if direction != "causal":
        raise ArgumentError(
            f"The model's attention is {direction}; these scores are defined for causal attention."
        )
    n_layers, n_heads, n_metrics = model.cfg.n_layers, model.cfg.n_heads, len(ATTENTION_METRICS)
    sums = torch.zeros(n_layers, n_heads, n_metrics, dtype=torch.float64)
    counts, chances = torch.zeros(2, n_layers, n_metrics, dtype=torch.float64)
    rests = torch.zeros(2, n_layers, n_heads, len(REST_METRICS), dtype=torch.float64)
    rest_chances = torch.zeros(2, n_layers, len(REST_METRICS), dtype=torch.float64)
    windows = _windows(model)
    sinks = [has_attention_sink(model, layer) for layer in range(n_layers)]
    n_batches = 0
    with measuring(model):
        for batch in (batch.to(device) for batch in batches):

            def add(layer: int, pattern: Tensor, batch: _Occurrences = batch) -> None:
                _require_within(pattern, layer, windows[layer])
                sums[layer] += batch.reduce(pattern, windows[layer], sink=sinks[layer]).cpu()
                if sink:
                    rests[:, layer] += batch.reduce_rest(pattern, windows[layer]).cpu()

            read_patterns(model, batch.tokens, add)
            expected = {window: batch.expected(window) for window in set(windows)}
            for layer, window in enumerate(windows):
                counts[layer] += expected[window][0].cpu()
                chances[layer] += expected[window][1].cpu()
                rest_chances[:, layer] += expected[window][2].cpu()
            n_batches += 1
    if not n_batches:
        raise ArgumentError("There is no batch to read attention from; give at least one.")
    require_numbers(sums, "attention patterns")
    metrics: tuple[str, ...] = ATTENTION_METRICS
    value, chance = sums / counts[:, None], chances / counts
    if sink:
        metrics = (*metrics, *REST_METRICS)
        value = torch.cat([value, rests[0] / rests[1]], dim=-1)
        chance = torch.cat([chance, rest_chances[0] / rest_chances[1]], dim=-1)
    index = pd.MultiIndex.from_product(
        [range(n_layers), range(n_heads), metrics], names=["layer", "head", "metric"]
    )
    table = pd.DataFrame(
        {
            "value": value.flatten().numpy(),
            "chance": chance[:, None].expand(-1, n_heads, -1).flatten().numpy(),
        },
        index=index,
    )
    return table.reset_index(), counts.amax(0)
