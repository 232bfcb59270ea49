"""Where in a model the answer appears, and which parts write it: read through the unembedding, over training.

The *logit lens* reads the residual stream after each part as if no other followed. *Direct logit
attribution* splits the difference of two logits into what each part has written into the stream for it.
Both are TransformerLens' (`tools.analysis.logit_lens`, the splits of its `ActivationCache`), over facts that
are read at different positions and over checkpoints, and checked against the model's logits: where a model
computes them in another way, there is an error and no number. Direct logit attribution is on the model's own
weights; theirs, which it equals, needs a model whose norms can be folded into them, and changes it.

Source: nostalgebraist 2020, "Interpreting GPT: the logit lens"; Elhage et al. 2021, "A mathematical
framework for transformer circuits"; Wang et al. 2022, "Interpretability in the wild", section 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis

from interp.biographies import AnyTexts
from interp.errors import ArgumentError, require_known, whole_number
from interp.interventions import Pairs, facts_of
from interp.model import at_least_single, measuring
from interp.progress import Progress, watched
from interp.series import AnySeries, Device, table_over_steps, texts_of
from interp.torch_state import default_state

Unit = Literal["component", "head"]
"""What a logit difference is split into: attention and MLP of each layer, or each head and the rest."""
OWN_DIFFERENCE = "logit_difference_base_minus_source"
"""The logit of the base's answer minus that of the source's, in logits."""
_SITES = {"pre": "resid_pre", "mid": "resid_mid", "post": "resid_post"}


@default_state()
def logit_lens(
    series: AnySeries,
    texts: AnyTexts | Pairs | None = None,
    steps: Sequence[int] | None = None,
    *,
    n_individuals: int | None = 128,
    batch_size: int = 16,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """What the residual stream would predict of each answer if no later part followed, over training.

    Args:
        series: Checkpoints: a run, `{step: model}`, or a series of yours.
        texts: Texts with values, of which every sentence with a value is a fact (`facts_of`); or pairs, of
            which the bases are read. Of a run by default its evaluation biographies of `n_individuals`.
        steps: Which checkpoints; all by default.
        n_individuals: Of a run, so many people; None for all.
        batch_size: So many facts at a time.
        device: As in `series.over_steps`.
        workers: As there.
        progress: As there.

    Returns:
        Columns `step`, `layer`, `site` ("resid_pre"; "resid_mid" where the model has such a stream;
        "resid_post" of the last layer, which is what the model itself predicts), and means over facts:
        `probability` of the answer, `rank` (1 for the highest logit of the vocabulary), `first` (the share
        of facts whose answer is ranked first); of pairs, `logit_difference_base_minus_source` (the base's
        answer minus the source's, in logits); `n` (facts).

    Raises:
        ArgumentError: a model whose logits are not its last stream through the final norm and the
            unembedding; texts without values.

    Example:
        ```python
        table = interp.logit_lens({0: early, 1000: late}, texts)
        interp.plots.logit_lens(table).show()
        ```
    """
    if not isinstance(texts, Pairs):
        texts = texts_of(series, texts, "evaluation", n_individuals)
    batch_size = whole_number(batch_size, "batch_size", 1)
    measure = partial(
        _lens,
        facts=facts_of(texts),
        pairs=texts if isinstance(texts, Pairs) else None,
        size=batch_size,
    )
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


@default_state()
def direct_logit_attribution(
    series: AnySeries,
    pairs: Pairs,
    steps: Sequence[int] | None = None,
    unit: Unit = "component",
    *,
    batch_size: int = 16,
    device: Device = None,
    workers: int | None = None,
    progress: Progress = watched,
) -> pd.DataFrame:
    """What each part of a model contributes directly to the base's answer over the source's, over training.

    Bases are run; the logit difference is that of the base's answer minus that of the source's, where the
    base is read. The final norm counts as what it does to the stream as it is there.

    Args:
        series: Checkpoints: a run, `{step: model}`, or a series of yours.
        pairs: The prompts and their two answers.
        steps: Which checkpoints; all by default.
        unit: "component": embeddings, attention and MLP of each layer. "head": each head, biases of its
            values included, and what is not a head's together.
        batch_size: So many pairs at a time.
        device: As in `series.over_steps`.
        workers: As there.
        progress: As there.

    Returns:
        Columns `step`, `component` ("embed", "pos_embed", "attn_out", "mlp_out"; "head", "remainder";
        "bias": of the final norm and the unembedding), `layer` and `head` (NA where there is none),
        `contribution` (logits, mean over pairs; at each step they add up to the difference),
        `standard_error` (over pairs, NaN of a single one) and `n` (pairs).

    Raises:
        ArgumentError: contributions do not add up to the logits' difference, as the model norms or scales
            what its parts write, or caps its logits; or heads' outputs are normed or scaled.

    Example:
        ```python
        table = interp.direct_logit_attribution({0: model}, pairs, unit="head")
        table.sort_values("contribution").tail()
        ```
    """
    require_known([unit], get_args(Unit), "unit")
    batch_size = whole_number(batch_size, "batch_size", 1)
    measure = partial(_attributed, pairs=pairs, unit=unit, size=batch_size)
    return table_over_steps(series, measure, steps, device, workers=workers, progress=progress)


def _lens(model: TransformerBridge, facts: Pairs, pairs: Pairs | None, size: int) -> pd.DataFrame:
    n_layers = model.cfg.n_layers
    facts = facts.to(next(model.parameters()).device)
    middle = all(f"blocks.{i}.hook_resid_mid" in model.hook_dict for i in range(n_layers))
    sites = ["resid_pre", "resid_mid"] if middle else ["resid_pre"]
    names = [f"blocks.{i}.hook_{site}" for i in range(n_layers) for site in sites]
    names.append(f"blocks.{n_layers - 1}.hook_resid_post")
    found: list[Float[np.ndarray, "number state fact"]] = []
    labels: list[str] = []
    for rows in _batches(facts, size):
        answer = facts.base_answer[rows]
        with measuring(model), _theirs("logit_lens"):
            logits, cache = model.run_with_cache(_read(facts, rows), names_filter=names)
            read = partial(analysis.logit_lens, model, cache=cache, incl_mid=middle)
            final = read(layers=[-1]).values[0]
            _require_same(at_least_single(final), at_least_single(logits[:, -1]), logits.dtype)
            chances = read(targets=answer, return_type="probs")
            labels = list(chances.labels)
            ranks = chances.rank_trajectory() + 1
            numbers = [chances.values[..., 0], ranks, ranks == 1]
            if pairs is not None:
                rival = pairs.source_answer.to(answer.device)[rows]
                own, other = (read(targets=t).values[..., 0].double() for t in (answer, rival))
                numbers.append(own - other)
        found.append(torch.stack([n.double() for n in numbers]).cpu().numpy())
    columns = ["probability", "rank", "first", *([] if pairs is None else [OWN_DIFFERENCE])]
    means = np.concatenate(found, axis=2).mean(axis=2)
    table = pd.DataFrame(dict(zip(columns, means, strict=True)))
    states = [label.split("_") for label in labels]
    layers = [n_layers - 1 if layer == "final" else int(layer) for layer, _ in states]
    table.insert(0, "layer", layers)
    table.insert(1, "site", [_SITES[kind] for _, kind in states])
    return table.assign(n=len(facts))


def _attributed(model: TransformerBridge, pairs: Pairs, unit: Unit, size: int) -> pd.DataFrame:
    from transformer_lens.tools.analysis.attribution_patching import _attention_write_obstruction

    if unit == "head" and (reason := _attention_write_obstruction(model)):
        raise ArgumentError(
            f"What a head writes is not what reaches the stream in this model: {reason}. Take "
            'unit="component", or knock out and patch heads.'
        )
    pairs = pairs.to(next(model.parameters()).device)
    contributions = np.empty((0, len(pairs)))
    labels: list[str] = []
    with measuring(model), _theirs("decomposition of the residual stream"):
        for rows in _batches(pairs, size):
            logits, cache = model.run_with_cache(_read(pairs, rows))
            if unit == "component":
                parts, labels = cache.decompose_resid(pos_slice=-1, return_labels=True)
            else:
                _require_heads(model, cache)
                parts, labels = cache.stack_head_results(
                    pos_slice=-1, incl_remainder=True, return_labels=True
                )
            stream = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][:, -1]
            answers = pairs.base_answer[rows], pairs.source_answer[rows]
            direct = _direct(model, parts, stream, *answers)
            _require_whole(direct, logits[:, -1], *answers)
            if not len(contributions):
                contributions = np.empty((len(direct), len(pairs)))
            contributions[:, rows.cpu().numpy()] = direct.cpu().numpy()
    n = len(pairs)
    names = [_named(label) for label in [*labels, "bias"]]
    table = pd.DataFrame(names, columns=["component", "layer", "head"])
    errors = contributions.std(axis=1, ddof=1) / n**0.5 if n > 1 else np.full(len(names), np.nan)
    table = table.astype({"layer": "Int64", "head": "Int64"})
    return table.assign(contribution=contributions.mean(axis=1), standard_error=errors, n=n)


def _direct(
    model: TransformerBridge,
    parts: Float[Tensor, "part fact d_model"],
    stream: Float[Tensor, "fact d_model"],
    answer: Int64[Tensor, " fact"],
    rival: Int64[Tensor, " fact"],
) -> Float[Tensor, "part_and_bias fact"]:
    """What parts of the last stream add to the logit of an answer over a rival's, and what biases add.

    The final norm is read as it is at this stream: a matrix, divided by the stream's size. In double
    precision, so that sums come out.
    """
    norm = model.ln_final.original_component
    weight, bias, centred = _final_norm(norm, model.cfg.d_model, stream)
    unembedding, constant = model.W_U.double(), model.b_U.double()
    direction = (unembedding[:, answer] - unembedding[:, rival]).T

    def before(vectors: Tensor) -> Tensor:
        vectors = vectors.double()
        return weight * (vectors - vectors.mean(-1, keepdim=True) * centred)

    normed = norm(stream[:, None])[:, 0].double() - bias
    scale = before(stream).square().sum(-1) / (before(stream) * normed).sum(-1)
    direct = (before(parts) * direction).sum(-1) / scale
    of_biases = direction @ bias + constant[answer] - constant[rival]
    return torch.cat([direct, of_biases[None]])


def _final_norm(
    norm: nn.Module, d_model: int, like: Tensor
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"], bool]:
    """The weight and bias of a norm, and whether it subtracts the mean, by what it makes of three vectors.

    Kinds of norms differ in what they call their weight and whether 1 is added to it.
    """
    probe = 1e3 * torch.ones(d_model).to(like)
    probe[1::2] *= -1
    zero, there, shifted = norm(torch.stack([0 * probe, probe, probe + 1e3])[None])[0].double()
    centred = bool((there - shifted).abs().max() < 1e-2 * (there - zero).abs().max())
    centre = probe.double() - probe.double().mean() * centred
    return (there - zero) / (centre / centre.square().mean().sqrt()), zero, centred


def _named(label: str) -> tuple[str, int | None, int | None]:
    """TransformerLens' label as component, layer and head: "3_mlp_out", "L3H7", "embed"."""
    if label.startswith("L") and "H" in label:
        layer, head = label[1:].split("H")
        return "head", int(layer), int(head)
    number, _, name = label.partition("_")
    return (name, int(number), None) if number.isdigit() else (label, None, None)


def _batches(facts: Pairs, size: int) -> Iterator[Tensor]:
    """The numbers of some facts at a time, all of them read at the same position."""
    for place in facts.read.unique().tolist():
        yield from (facts.read == place).nonzero()[:, 0].split(size)


def _read(facts: Pairs, rows: Tensor) -> Tensor:
    """Some prompts of the same length, up to the position that is read: what follows changes nothing."""
    return facts.base[rows, : int(facts.read[rows[0]]) + 1]


def _require_same(
    lens: Float[Tensor, "fact vocab"], logits: Float[Tensor, "fact vocab"], dtype: torch.dtype
) -> None:
    spread = float((logits - logits.mean(1, keepdim=True)).abs().max())
    apart = float((lens - logits).abs().max())
    if not apart <= max(1e-3, 4 * torch.finfo(dtype).eps) * spread:
        raise ArgumentError(
            f"The last stream of this model, read through the final norm and the unembedding, is up to "
            f"{apart:.3g} from its logits (which reach {spread:.3g} from their mean): its logits are "
            "computed in another way, so the logit lens would be wrong. Use probes or patching."
        )


def _require_heads(model: TransformerBridge, cache: ActivationCache) -> None:
    """Checks that attention writes what its heads do through `W_O`, and a constant: no adapter, no scale."""
    for layer in range(model.cfg.n_layers):
        written = cache[f"blocks.{layer}.hook_attn_out"]
        of_heads = cache[f"blocks.{layer}.attn.hook_z"].flatten(2) @ model.W_O[layer].flatten(0, 1)
        rest = at_least_single(written) - at_least_single(of_heads)
        allowed = max(1e-4, 4 * torch.finfo(written.dtype).eps) * float(written.abs().max()) + 1e-6
        if not float((rest - rest[:1, :1]).abs().max()) <= allowed:
            raise ArgumentError(
                f"The heads of layer {layer} times W_O are not what attention writes there, so what a head "
                'contributes cannot be told (merge an adapter, take hooks off). Take unit="component".'
            )


def _require_whole(
    direct: Float[Tensor, "part fact"],
    logits: Float[Tensor, "fact vocab"],
    answer: Int64[Tensor, " fact"],
    rival: Int64[Tensor, " fact"],
) -> None:
    """Checks that contributions add up to the model's own logit difference."""
    own, other = (logits.gather(1, token[:, None])[:, 0].double() for token in (answer, rival))
    total, difference = direct.sum(dim=0), own - other
    allowed = max(1e-4, 4 * torch.finfo(logits.dtype).eps) * direct.abs().sum(dim=0) + 1e-5
    wrong = (~((total - difference).abs() <= allowed)).nonzero()[:, 0]
    if len(wrong):
        at = int(wrong[0])
        raise ArgumentError(
            f"What the parts of this model write adds up to {float(total[at]):.4g}, but its logit "
            f"difference is {float(difference[at]):.4g}: it norms, scales or caps on the way, so direct "
            "contributions cannot be told. Use knockouts and patches, which hold for any model."
        )


@contextmanager
def _theirs(name: str) -> Iterator[None]:
    """Refusals by a function of TransformerLens as errors of arguments, with its reason."""
    try:
        yield
    except ArgumentError:
        raise
    except (ValueError, NotImplementedError, KeyError, AttributeError) as error:
        raise ArgumentError(
            f"TransformerLens' {name} does not take this model: {' '.join(str(error).split())} Use patching "
            "or knockouts, which hold for any model."
        ) from error
