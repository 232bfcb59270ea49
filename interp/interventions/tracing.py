"""Causal tracing: which states bring an answer back after its subject has been made unreadable.

Three runs of each text. In the *clean* run the model reads it as it is. In the *corrupted* run Gaussian
noise is added to the embeddings of the subject's tokens, so that the answer is no longer to be had. In a
*restored* run, corrupted by the same noise, one state (an activation of a layer, or of a window of
layers, at some positions) is set to what it was in the clean run. What the probability of the answer
falls by is the *total effect* of the noise; what a state gives back of it is its *indirect effect*.

Source: Meng et al. 2022, "Locating and editing factual associations in GPT", section 2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerFast

from interp.biographies import AnyTexts, Batch, Spans, Texts, spans_of
from interp.biographies.positions import PositionMask
from interp.errors import ArgumentError, NothingToMeasureError, whole_number
from interp.interventions.grid import Cell, Grid, Replace, grid_cells
from interp.interventions.hooked import EMBEDDINGS
from interp.interventions.memory_limit import blocks_of, budget
from interp.interventions.metrics import Answers, Metric, measured
from interp.interventions.pairs import Pairs
from interp.interventions.patch import edited_keys, labelled, measure_cells
from interp.interventions.positions import (
    Positions,
    control_positions,
    require_alike,
    resolve_positions,
)
from interp.interventions.sites import Key, read_activations, require_live_sites
from interp.interventions.windowed import unpatched_runs
from interp.model import logits_at, measuring, of_this_thread
from interp.model.live import require_live
from interp.model.patterns import require_hooks
from interp.torch_state import default_state

TRACED = Grid(
    ("resid_post", "attn_out", "mlp_out"),
    ("first name", "middle name", "last name", "type words", "text", "predicts value"),
)
"""The states that are restored by default: after each layer, and what its two parts write."""
NOISED = ("subject", "control")
"""Which tokens noise is added to: the subject's, or as many others."""
_NOISE_STREAM = 0x6E6F6973  # keeps this random stream apart from others of the same seed
_PROBABILITY: Mapping[str, Metric] = {
    "probability": lambda logits, answers: logits.softmax(1).gather(1, answers.base[:, None])[:, 0]
}


@default_state()
def causal_trace(
    model: TransformerLensModel,
    facts: AnyTexts | Pairs,
    grid: Grid = TRACED,
    *,
    noise: float | int = 3.0,
    noise_std: float | int | None = None,
    n_samples: int = 10,
    subject: Positions = "name",
    control: bool = True,
    per_fact: bool = False,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_memory_gb: float | int | None = None,
) -> pd.DataFrame:
    """Restores clean states, one cell of a grid at a time, in runs whose subject is drowned in noise.

    The noise of a sample is the same in the corrupted run and in all restored ones, whatever the cells and
    the memory; it never reaches the clean run. Hooks that are on the model take effect in all runs.

    Args:
        model: Any TransformerLens model; it is left as it was.
        facts: Texts with values: every sentence with a value is a fact, whose subject is the sentence's
            name and whose answer the first token of the value, read up to there. Of pairs, the bases.
        grid: Which states are restored: sites, positions relative to the one that is read, layers, and
            windows of them (`Grid(..., window=10)`; Meng et al. restore ten MLPs, or attention layers).
        noise: The standard deviation of the noise, as a multiple of that of all coordinates of the
            subject tokens' embeddings.
        noise_std: The same in units of the embeddings, in place of `noise`.
        n_samples: Samples of noise for each fact.
        subject: The tokens that get noise: position kinds ("every name" where a text names its subject
            before), or masks by label.
        control: Whether all of it is done with noise on other tokens too, as many as the subject has
            (`control_positions`; fewer where there are not so many, and none of a fact without any).
        per_fact: Give a row for every fact, not their mean.
        seed: Of the noise, and of the control's draw.
        tokenizer: Gives words for the labels of single positions.
        max_memory_gb: As in `patch`.

    Returns:
        A row for every cell and kind of tokens with noise. The columns of `patch` up to `token`; `noised`
        ("subject" or "control"); `clean`, `corrupted`, `restored` (probabilities of the answer),
        `total_effect` (clean - corrupted), `indirect_effect` (restored - corrupted), all of them means over
        facts that have such a position and over samples; `standard_error` (of the indirect effect, over
        facts, NaN of a single one); `fell` (the share of these facts whose probability falls under noise, in
        the mean over samples: of others nothing can be restored); `n` (these facts). With `per_fact`,
        `fact` (by text, then sentence) in place of `n`, and the standard error is over samples.

    Raises:
        ArgumentError: a text without a value or subject, a grid that does not replace, no noise or sample,
            or a model without the hook points.

    Example:
        ```python
        table = causal_trace(model, texts, Grid("mlp_out", ("last name", "predicts value"), window=10))
        interp.plots.causal_trace(table).show()
        ```
    """
    n_samples, seed = whole_number(n_samples, "n_samples", 1), whole_number(seed, "seed", 0)
    for name, given in (("noise", noise), ("noise_std", noise_std)):
        if given is not None and not 0 < given < float("inf"):
            raise ArgumentError(f"{name}={given!r} is no noise; give a number above 0.")
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    pairs = facts_of(facts).to(device)
    cells = grid_cells(model, pairs, grid, tokenizer)
    if not isinstance(grid.what, Replace) or grid.what.values is not None:
        raise ArgumentError(
            f"edit={grid.edit!r}: causal tracing restores states of the clean run, which is the edit "
            '"replace". Use `patch` for other edits.'
        )
    if not (per_fact or grid.aligned) and grid.each_position:
        require_alike(pairs)
    masks = {"subject": _subject(pairs, subject)}
    if control:
        masks["control"] = control_positions(pairs, masks["subject"], seed)
    require_hooks(model, [EMBEDDINGS])
    require_live(model, [EMBEDDINGS], pairs.base[:1])
    require_live_sites(model, edited_keys(cells), pairs.base[:1])
    limit = budget(max_memory_gb, device)
    clean = np.empty(len(pairs))
    corrupted = np.empty((len(masks), n_samples, len(pairs)))
    restored = np.empty((len(masks), n_samples, len(cells), len(pairs)))
    with measuring(model):
        blocks = blocks_of(model, pairs, edited_keys(cells), limit)
        std = noise * _spread(model, pairs, masks["subject"], blocks)
        std = std if noise_std is None else float(noise_std)
        for block in blocks:
            some = pairs[block], [cell.of(block) for cell in cells]
            clean[block], source = _clean(model, *some)
            for kind, mask in enumerate(masks.values()):
                for sample in range(n_samples):
                    drawn = _noise(mask, block, model.cfg.d_model, std, (seed, kind, sample))
                    corrupted[kind, sample, block], restored[kind, sample, :, block] = _trace(
                        model, *some, source, drawn, limit
                    )
    return _table(cells, masks, clean, corrupted, restored, per_fact=per_fact)


def facts_of(given: AnyTexts | Pairs) -> Pairs:
    """The facts that texts tell, as pairs of each prompt with itself.

    One for every sentence with a value, by text, then sentence; read where the value's first token is
    predicted, which is the answer. Of pairs, the bases.

    Raises:
        ArgumentError: a text without a value, or a value without a name before it in its sentence.
    """
    if isinstance(given, Pairs):
        return Pairs.of_tokens(
            given.base, given.base, given.spans, given.read, given.base_answer, given.base_answer
        )
    if not isinstance(given, Texts | Batch):
        raise ArgumentError(
            f"facts are {type(given).__name__}; give interp.Texts(tokens, spans) with values, biographies, "
            "or interp.Pairs."
        )
    spans = spans_of(given)
    told = spans.value_start > 0
    without = (~told.any(dim=1)).nonzero()[:, 0]
    if len(without):
        raise ArgumentError(
            f"Text {int(without[0])} has no value that a token precedes, so nothing is answered there; mark "
            "the answer (Spans.from_lists(..., values=...)), or leave the text out."
        )
    row, sentence = told.nonzero(as_tuple=True)
    start, name = spans.value_start[row, sentence], spans.name_start[row, sentence]
    nameless = ((name < 0) | (name > start)).nonzero()[:, 0]
    if len(nameless):
        at = int(nameless[0])
        raise ArgumentError(
            f"The value at token {int(start[at])} of text {int(row[at])} has no subject: no name precedes it "
            "in its sentence. Mark one (Spans.from_lists(..., names=...)), or leave the text out."
        )
    tokens, answer = given.tokens[row], given.tokens[row, start]
    facts = Spans(spans.kind[row], spans.sentence[row])
    return Pairs.of_tokens(tokens, tokens, facts, start - 1, answer, answer)


def _subject(pairs: Pairs, subject: Positions) -> PositionMask:
    """The tokens that get noise, none after the position that is read; every fact has to have some."""
    mask = torch.stack(list(resolve_positions(pairs, subject).values())).any(dim=0)
    places = torch.arange(mask.shape[1], device=mask.device)
    mask = mask & (places <= pairs.read[:, None])
    without = (~mask.any(dim=1)).nonzero()[:, 0]
    if len(without):
        raise ArgumentError(
            f"Fact {int(without[0])} has no subject: no token of it is {subject!r} up to position "
            f"{int(pairs.read[without[0]])}, which is read. Mark its name, or leave the fact out."
        )
    return mask


def _spread(
    model: TransformerLensModel, pairs: Pairs, mask: PositionMask, blocks: Sequence[slice]
) -> float:
    """The standard deviation of all coordinates of the embeddings of some tokens."""
    found: list[Tensor] = []

    def keep(embedded: Tensor, hook: Any, chosen: Bool[Tensor, "pair position"]) -> None:
        found.append(embedded.detach()[chosen].double().cpu())

    for block in blocks:
        tokens, read = pairs.base[block], pairs.read[block]
        hook = of_this_thread([(EMBEDDINGS, lambda e, hook, m=mask[block]: keep(e, hook, m))])
        with model.hooks(fwd_hooks=hook):  # type: ignore[attr-defined]
            logits_at(model, tokens, torch.arange(len(tokens), device=read.device), read)
    spread = float(torch.cat(found).std())
    if not spread > 0:
        raise NothingToMeasureError(
            "The embeddings of all subjects are the same number, which gives noise no size; give "
            "noise_std."
        )
    return spread


def _noise(
    mask: PositionMask, block: slice, d_model: int, std: float, seeds: tuple[int, int, int]
) -> Float[Tensor, "pair position d_model"]:
    """Noise at the tokens of a mask; that of a fact depends on its number and the seeds alone."""
    chosen = mask[block].cpu()
    noise = torch.zeros(*chosen.shape, d_model)
    for row, fact in enumerate(range(*block.indices(len(mask)))):
        generator = np.random.default_rng([_NOISE_STREAM, *seeds, fact])
        drawn = generator.standard_normal((int(chosen[row].sum()), d_model))
        noise[row, chosen[row]] = torch.from_numpy(std * drawn).float()
    return noise.to(mask.device)


def _clean(
    model: TransformerLensModel, pairs: Pairs, cells: Sequence[Cell]
) -> tuple[Float[np.ndarray, " pair"], dict[Key, Tensor]]:
    """The probability of each answer in the clean run, and its states."""
    rows = torch.arange(len(pairs), device=pairs.read.device)
    logits = logits_at(model, pairs.base, rows, pairs.read)
    answers = Answers(pairs.base_answer, pairs.source_answer)
    states = read_activations(model, pairs.base, edited_keys(cells))
    return measured(_PROBABILITY, logits, answers)[0], states


def _trace(
    model: TransformerLensModel,
    pairs: Pairs,
    cells: Sequence[Cell],
    states: Mapping[Key, Tensor],
    noise: Float[Tensor, "pair position d_model"],
    limit: float,
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, "cell pair"]]:
    """The probability of each answer in the corrupted run, and in each restored one."""
    several = any(len(cell.window) > 1 for cell in cells)
    keys = edited_keys(cells)
    runs = unpatched_runs(model, pairs.base, pairs.read, keys, noise, several=several)
    given = [None for cell in cells for _ in cell.parts]
    corrupted, restored = measure_cells(
        model, pairs, cells, Replace(), given, runs, states, _PROBABILITY, limit
    )
    return corrupted[0], restored[0]


def _table(
    cells: Sequence[Cell],
    masks: Mapping[str, PositionMask],
    clean: Float[np.ndarray, " pair"],
    corrupted: Float[np.ndarray, "noised sample pair"],
    restored: Float[np.ndarray, "noised sample cell pair"],
    *,
    per_fact: bool,
) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for kind, (noised, mask) in enumerate(masks.items()):
        noisy = mask.any(dim=1)
        for index, cell in enumerate(cells):
            some = np.flatnonzero((noisy & cell.mask.any(dim=1)).cpu().numpy())
            corrupt, back = corrupted[kind][:, some], restored[kind][:, index, some]
            effect = back - corrupt
            each = np.stack([clean[some], corrupt.mean(0), back.mean(0)])
            fell = each[1] < each[0]
            if per_fact:
                errors = _standard_error(effect)
                columns = zip(some.tolist(), *each.tolist(), errors, fell.tolist(), strict=True)
                rows += [
                    (index, noised, *probabilities, error, down, fact)
                    for fact, *probabilities, error, down in columns
                ]
                continue
            means = each.mean(1).tolist() if len(some) else [np.nan] * 3
            error = float(_standard_error(effect.mean(0)[:, None])[0]) if len(some) else np.nan
            share = float(fell.mean()) if len(some) else np.nan
            rows.append((index, noised, *means, error, share, len(some)))
    names = ["cell", "noised", "clean", "corrupted", "restored", "standard_error", "fell"]
    table = pd.DataFrame(rows, columns=[*names, "fact" if per_fact else "n"])
    table.insert(5, "total_effect", table["clean"] - table["corrupted"])
    table.insert(6, "indirect_effect", table["restored"] - table["corrupted"])
    return labelled(cells).merge(table, left_index=True, right_on="cell").drop(columns="cell")


def _standard_error(values: Float[np.ndarray, "draw column"]) -> Float[np.ndarray, " column"]:
    """Of the mean over draws; NaN of a single one."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1], np.nan)
    found: np.ndarray = values.std(axis=0, ddof=1) / np.sqrt(n)
    return found
