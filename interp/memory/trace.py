"""One fact under the microscope: where a model keeps it, who moves it, who reads it out.

Four positions matter: the tokens of the name, where a person begins to be known, and the position
that predicts the value's first token. Everything is measured on one logit difference: that of the
true value's first token minus the mean over the distinct first tokens of the attribute's other
values, in nats. It does not grow as a model merely learns that some city has to follow.

- Direct contributions (where the value is predicted): the final residual stream is a sum of
  embeddings, heads, MLPs and biases. With the final norm's scale held at what it was in this pass, so
  is the logit difference.
- Contributions through attention (at a name token): what each part writes there, read by the heads of
  later layers with the attention that the predicting position paid to it in this pass, and written by
  them straight to the logits. Norm scales and patterns are held at what they were. Paths through a
  later MLP, or over a third position, are not in it: an effect of zero here does not say that a token
  does not matter. For that there are knockouts and swaps.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits" (direct and virtual
contributions); nostalgebraist 2020, "Interpreting GPT: the logit lens"; Geva et al. 2023 (subject
enrichment at the last name token, extraction by later heads).
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import ATTRIBUTES, NAME_PARTS, Batch, TokenKind, Wordings
from interp.errors import ArgumentError, CheckpointError, RunError, suggest
from interp.memory.values import promoted_logits
from interp.model import evaluating, logits_at, pattern_hook, require_own_weights
from interp.model.patterns import require_hooks
from interp.phases import Phases
from interp.run import Run
from interp.series import models_at

VALUE, NAME = "predicts value", "last name"
NAME_TOKENS = ("first name", "middle name", NAME)
TRACE_POSITIONS = (VALUE, *NAME_TOKENS)
"""The positions of a trace, as its tables' column `at` names them."""
CONTEXTS = ("first", "biography")
GROUPS = (
    "first_name",
    "middle_name",
    "last_name",
    "type_words",
    "earlier_names",
    "first_token",
    "other",
)
"""The columns of attention in `Trace.heads`; they add up to 1."""
_N_PROMOTED = 6


@dataclass(frozen=True, repr=False)
class Trace:
    """Where one fact sits in a model, at one step of its training.

    Tables have a column `at`, one of `TRACE_POSITIONS`: "predicts value" is the position that predicts the
    value's first token; "first name", "middle name" and "last name" are the last tokens of the name's
    parts in the same sentence. Contributions add to `logit_difference` and are in nats: direct at
    "predicts value", through attention at name tokens (see the module).

    Attributes:
        individual: Whose fact it is.
        name: Their full name.
        held_out: Whether training never showed this person.
        attribute: Which attribute.
        value: Its true value.
        step: The checkpoint, in steps.
        wordings: "evaluation" or "train": which of the person's templates the sentence is from.
        draw: Which of them, and which order of sentences.
        context: "first" if the fact's sentence is the first, "biography" if at its drawn place.
        told_earlier: Attributes told earlier in the text that happen to have the same value: then the
            model may copy it.
        value_position: Position that predicts the value's first token: the text's last token.
        name_position: Position of the last name token in the fact's sentence.
        probability: Of the value's first token, in the prediction.
        rank: Of that token in the prediction; 1 is the top.
        value_probability: Of the whole value, each of its tokens given those before.
        logit_difference: See the module, in nats.
        tokens: The text that the model reads: `position`, `token`, `token_id`, `kind`, `part` (which
            part of a name), `sentence`, `attribute` (that the sentence tells).
        predictions: The top of the prediction: `rank`, `token`, `token_id`, `probability`.
        attention: `at`, `layer`, `head`, `position` (attended to), `attention` (a share), and at
            "predicts value" `contribution`: what the head carries over from there.
        heads: `at`, `layer`, `head`, the shares of attention to each of `GROUPS` and the head's
            `contribution`. `first_name` to `type_words` are those of the fact's sentence;
            `first_token` is the text's.
        components: `at`, `component`, `layer`, `contribution`: "embedding", "position", "heads" (of a
            layer together), "attention bias", "mlp", "bias" (of norms, unembedding and, at name
            tokens, the reading heads' values). At "predicts value" they add up to
            `logit_difference`; at a name token to what all heads carry over from there.
        neurons: `at`, `layer`, `neuron`, `activation`, `contribution`, `promotes` (the tokens that it
            promotes most, at name tokens through attention: see `interp.memory.promoted_logits`),
            `value_rank` (of the true value's first token among all that it promotes). The strongest
            of each layer first; none of the last layer at name tokens, which nobody reads there.
        lens: The logit lens: `at`, `layer`, `site` (`resid_pre`, `resid_mid`, `resid_post`),
            `probability`, `rank` of the value's first token, `rank_among_values` (among the first
            tokens of the attribute's values), `logit_difference`.
        history: Over the checkpoints: `step`, `probability`, `value_probability`.
        phases: Of the run; None where nothing was measured while it was trained.
    """

    individual: int
    name: str
    held_out: bool
    attribute: str
    value: str
    step: int
    wordings: str
    draw: int
    context: str
    told_earlier: tuple[str, ...]
    value_position: int
    name_position: int
    probability: float
    rank: int
    value_probability: float
    logit_difference: float
    tokens: pd.DataFrame = field(hash=False, compare=False)
    predictions: pd.DataFrame = field(hash=False, compare=False)
    attention: pd.DataFrame = field(hash=False, compare=False)
    heads: pd.DataFrame = field(hash=False, compare=False)
    components: pd.DataFrame = field(hash=False, compare=False)
    neurons: pd.DataFrame = field(hash=False, compare=False)
    lens: pd.DataFrame = field(hash=False, compare=False)
    history: pd.DataFrame = field(hash=False, compare=False)
    phases: Phases | None

    @property
    def text(self) -> str:
        """The text that the model reads, words with spaces between."""
        return " ".join(self.tokens["token"]).replace(" ##", "")  # ## goes on with a word

    def carried(self) -> pd.DataFrame:
        """What heads carry over from each token to the prediction.

        Returns:
            The columns of `tokens`, and `contribution` (nats): those of the `attention` table,
            summed over heads.
        """
        here = self.attention[self.attention["at"] == VALUE]
        totals = here.groupby("position")["contribution"].sum()
        return self.tokens.assign(contribution=totals.reindex(self.tokens["position"]).to_numpy())

    def strongest_heads(self, at: str = VALUE, n: int = 3) -> pd.DataFrame:
        """The heads that contribute most at a position, for or against the true value.

        Args:
            at: One of `TRACE_POSITIONS`: "predicts value" for who reads the fact out, a name token for
                who gathered there what is read.
            n: How many.

        Raises:
            ArgumentError: no such position.
        """
        _require_one_of("at", at, TRACE_POSITIONS)
        return _strongest(self.heads[self.heads["at"] == at], n)

    def strongest_neurons(self, at: str | None = VALUE, n: int = 5) -> pd.DataFrame:
        """The neurons that contribute most, for or against the true value.

        Args:
            at: One of `TRACE_POSITIONS`, or None for all name tokens together.
            n: How many.

        Raises:
            ArgumentError: no such position.
        """
        if at is None:
            return _strongest(self.neurons[self.neurons["at"] != VALUE], n)
        _require_one_of("at", at, TRACE_POSITIONS)
        return _strongest(self.neurons[self.neurons["at"] == at], n)

    def __repr__(self) -> str:
        phase = f" ({self.phases.at(self.step)})" if self.phases else ""
        lines = [
            f"Trace of the {self.attribute.replace('_', ' ')} of {self.name} "
            f"(individual {self.individual}{', held out' if self.held_out else ''}), "
            f"step {self.step:,}{phase}",
            f"  {self.text} -> {self.value}",
            f"  probability {self.probability:.3f} (rank {self.rank}), "
            f"whole value {self.value_probability:.3f}, "
            f"logit difference {self.logit_difference:+.2f}; predicted: {self._predicted()}",
        ]
        for title, words in self._findings():
            lines += [f"  {title}:", *(f"    {line}" for line in words)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks. Names and tokens come from data: everything is escaped."""
        shade = {
            "name": "rgba(31,131,196,.28)", "value": "rgba(213,94,0,.28)",
            "type": "rgba(0,158,115,.28)",
        }  # fmt: skip
        spans = " ".join(
            f'<span style="background:{shade.get(str(row.kind), "none")};padding:0 2px;'
            f'border-radius:3px" title="{_escaped(row.kind)}">{_escaped(row.token)}</span>'
            for row in self.tokens.itertuples()
        )
        first, *_, numbers = (_escaped(line.strip()) for line in repr(self).split("\n")[:3])
        lists = "".join(
            f"<p>{title}:</p><ul>{''.join(f'<li>{_escaped(line)}</li>' for line in words)}</ul>"
            for title, words in self._findings()
        )
        return (
            f"<div><p><strong>{first}</strong></p><p>{spans} → <em>{_escaped(self.value)}</em></p>"
            f"<p>{numbers}</p>{lists}</div>"
        )

    def _findings(self) -> list[tuple[str, list[str]]]:
        """What the tables say, in words, under headings."""
        found = [
            ("Contributions where the value is predicted", self._parts()),
            ("Neurons there", self._firing(VALUE)),
            ("Carried over by heads, from", self._sources()),
            ("Neurons at the name, read through attention", self._firing(None)),
        ]
        if self.told_earlier:
            found.insert(0, ("The same value was told earlier, as", list(self.told_earlier)))
        return [(title, lines) for title, lines in found if lines]

    def _predicted(self, n: int = 3) -> str:
        top = self.predictions.head(n)
        pairs = zip(top["token"], top["probability"], strict=True)
        return " · ".join(f"{token} {share:.2f}" for token, share in pairs)

    def _parts(self, n: int = 5) -> list[str]:
        """The strongest heads and MLPs in words."""
        found = [
            (cast(float, row.contribution), f"head {row.layer}.{row.head}", self._looks_at(row))
            for row in self.heads[self.heads["at"] == VALUE].itertuples()
        ]
        components = self.components[self.components["at"] == VALUE]
        for row in components[components["component"] == "mlp"].itertuples():
            found.append((cast(float, row.contribution), f"MLP {row.layer}", ""))
        found.sort(key=lambda part: -abs(part[0]))
        return [f"{name} {share:+.2f}{seen}" for share, name, seen in found[:n]]

    def _looks_at(self, row: Any) -> str:
        shares = {group: getattr(row, group) for group in GROUPS}
        group = max(shares, key=lambda one: shares[one])
        return f" (attends to {group.replace('_', ' ')}: {shares[group]:.2f})"

    def _sources(self, n: int = 3) -> list[str]:
        """What is carried over from each name token, and who wrote it there; from the rest."""
        lines, total = [], 0.0
        for at in NAME_TOKENS:
            rows = self.components[self.components["at"] == at]
            total += rows["contribution"].sum()
            top = _strongest(rows, n)
            layers = ["" if pd.isna(layer) else f" {layer}" for layer in top["layer"]]
            parts = ", ".join(
                f"{component}{layer} {share:+.2f}"
                for component, layer, share in zip(
                    top["component"], layers, top["contribution"], strict=True
                )
            )
            lines.append(f"{at} {rows['contribution'].sum():+.2f}: {parts}")
        rest = self.carried()["contribution"].sum() - total
        return [*lines, f"all other tokens {rest:+.2f}"]

    def _firing(self, at: str | None, n: int = 3) -> list[str]:
        return [
            f"neuron {row.layer}.{row.neuron} {row.contribution:+.2f}"
            f"{f' at the {row.at}' if at is None else ''}, activation {row.activation:.2f}, "
            f"promotes {' · '.join(cast(tuple[str, ...], row.promotes))}"
            for row in self.strongest_neurons(at, n).itertuples()
        ]


def trace(
    run: Run,
    person: SupportsIndex | str,
    attribute: str,
    step: int | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    context: str = "first",
    top: int = 8,
) -> Trace:
    """Where one fact sits at one step: who moved the name, which neurons fired, who read it out.

    A run that was trained with patched attention is read with the attention it was trained with.

    Args:
        run: The run.
        person: Their index, their full name, or a part of it that nobody else has (see
            `Population.find`). Held-out people are allowed: `Trace.held_out`.
        attribute: One of `interp.biographies.ATTRIBUTES`, with _, - or spaces between words.
        step: The checkpoint; the last by default.
        wordings: "evaluation" for a template never seen with this person, "train" for one of the 20.
        draw: Another number gives another of these templates, and another order of sentences.
        context: "first" lets the fact's sentence come first, so that the name is read only once;
            "biography" leaves it at its drawn place, after the earlier sentences. Either way the text
            ends before the value.
        top: How many predictions, and how many neurons of each layer.

    Raises:
        RunError: nobody has that name, several people have, or the run has no checkpoint.
        ArgumentError: no such individual, attribute, wordings or context, or `top` or `draw` out of
            range.
        CheckpointError: there is no checkpoint at that step.

    Example:
        ```python
        fact = interp.trace(run, "Wim Mireia Vasiliev", "university", step=300)
        fact.heads[fact.heads["at"] == "predicts value"]
        interp.plots.fact_trace(fact).show()
        ```
    """
    steps = None if step is None else [step]
    return traces(run, [(person, attribute)], steps, wordings, draw, context, top)[0]


def traces(
    run: Run,
    facts: Sequence[tuple[SupportsIndex | str, str]],
    steps: Sequence[int] | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    context: str = "first",
    top: int = 8,
    history: Sequence[int] | None = None,
) -> list[Trace]:
    """Several facts at several steps; each checkpoint is read once.

    Args:
        run: The run.
        facts: Pairs of a person and an attribute (see `trace`).
        steps: The checkpoints; the last by default.
        wordings: See `trace`.
        draw: See `trace`.
        context: See `trace`.
        top: See `trace`.
        history: Checkpoints of `Trace.history`, besides `steps`; all by default.

    Returns:
        The traces, fact by fact and step by step, in the order given.

    Raises:
        As `trace`; ArgumentError also if no fact or step is named.
    """
    _require_one_of("wordings", wordings, ("train", "evaluation"))
    _require_one_of("context", context, CONTEXTS)
    if top < 1 or draw < 0:
        raise ArgumentError(f"top={top}, draw={draw}: top has to be at least 1, draw at least 0.")
    if not facts or (steps is not None and not len(steps)):
        raise ArgumentError("No fact or no step is named; give at least one of each.")
    asked = list(facts)
    texts = [_Text.of(run, *fact, wordings, draw, context) for fact in asked]
    every = run.steps
    if not every:
        raise RunError(f"{run.path} has no checkpoint yet; train it with --resume.")
    chosen = [every[-1]] if steps is None else list(steps)
    unknown = [step for step in [*chosen, *(history or [])] if step not in every]
    if unknown:
        raise CheckpointError(
            f"There is no checkpoint at step {unknown[0]} in {run.path}. Steps: "
            f"{', '.join(map(str, every))}."
        )
    rows: list[list[tuple[int, float, float]]] = [[] for _ in texts]
    read: dict[tuple[int, int], dict[str, Any]] = {}
    for step, model in models_at(run, sorted({*chosen, *(every if history is None else history)})):
        with evaluating(model):
            for row, found in zip(rows, _probabilities(model, texts, run), strict=True):
                row.append((step, *found))
            if step in chosen:
                promoted = _Promoted(model)
                for index, text in enumerate(texts):
                    read[index, step] = _read(model, text, run, top, promoted)
    phases = run.known_phases
    result = []
    for index, text in enumerate(texts):
        facts_of = text.facts(run)
        table = pd.DataFrame(rows[index], columns=["step", "probability", "value_probability"])
        for step in chosen:
            at = table[table["step"] == step]
            result.append(
                Trace(
                    **facts_of, step=step, wordings=wordings, draw=draw, context=context,
                    value_probability=float(at["value_probability"].iloc[0]),
                    **read[index, step], history=table.copy(), phases=phases,
                )
            )  # fmt: skip
    return result


@dataclass(frozen=True)
class _Text:
    """A fact as a text: a biography of one, whose value begins at `start`."""

    individual: int
    attribute: int
    batch: Batch
    start: int
    length: int
    rivals: tuple[int, ...]
    """The distinct first tokens of the attribute's other values."""

    @classmethod
    def of(
        cls, run: Run, person: SupportsIndex | str, attribute: str, wordings: str, draw: int,
        context: str,
    ) -> "_Text":  # fmt: skip
        index = _attribute_index(attribute)
        individual = run.population.individual(person)
        corpus = run.corpus
        batch = corpus.biographies(np.array([individual]), cast(Wordings, wordings), draw)
        if context == "first":
            others = [other for other in range(len(ATTRIBUTES)) if other != index]
            batch = corpus.assemble(
                np.array([individual]), np.array([[index, *others]]), batch.templates.numpy()
            )
        start, length = batch.value_start[0, index], batch.value_length[0, index]
        firsts = {tokens[0] for tokens in corpus.value_tokens(ATTRIBUTES[index])}
        rivals = sorted(firsts - {int(batch.tokens[0, start])})
        if not rivals:
            raise ArgumentError(
                f"All values of {ATTRIBUTES[index]} begin with the same token: there is nothing to compare "
                "the true value with. Trace another attribute."
            )
        return cls(individual, index, batch, int(start), int(length), tuple(rivals))

    @property
    def read(self) -> Int[Tensor, "1 position"]:
        """The tokens that the model reads: all before the value."""
        return self.batch.tokens[:, : self.start]

    @property
    def target(self) -> int:
        """The value's first token."""
        return int(self.batch.tokens[0, self.start])

    @property
    def places(self) -> dict[str, int]:
        """Where each of `TRACE_POSITIONS` is."""
        here = self.batch.sentence[0] == self.batch.sentence[0, self.start]
        name = here & (self.batch.kind[0] == TokenKind.NAME)
        found = {VALUE: self.start - 1}
        for index, at in enumerate(NAME_TOKENS):
            found[at] = int((name & (self.batch.part[0] == index)).nonzero()[-1, 0])
        return found

    def facts(self, run: Run) -> dict[str, Any]:
        """What is known of the text before any model has read it."""
        people, name = run.population, ATTRIBUTES[self.attribute]
        facts = people.facts(self.individual)
        starts = self.batch.value_start[0].tolist()
        same = (
            other
            for other, start in zip(ATTRIBUTES, starts, strict=True)
            if start < self.start and facts[other] == facts[name]
        )
        return {
            "individual": self.individual,
            "name": people.name(self.individual),
            "held_out": bool(people.is_held_out[self.individual]),
            "attribute": name,
            "value": facts[name],
            "told_earlier": tuple(same),
            "value_position": self.start - 1,
            "name_position": self.places[NAME],
            "tokens": self.table(run),
        }

    def table(self, run: Run) -> pd.DataFrame:
        """The tokens that the model reads, one a row."""
        batch, n = self.batch, self.start
        ids, part = batch.tokens[0, :n].tolist(), batch.part[0, :n].tolist()
        kind = [TokenKind(k) for k in batch.kind[0, :n].tolist()]
        parts = [
            _NAME_PARTS[p] if k == TokenKind.NAME else "" for k, p in zip(kind, part, strict=True)
        ]
        told = batch.attribute[0, :n].tolist()
        return pd.DataFrame(
            {
                "position": range(n),
                "token": _words(run, ids),
                "token_id": ids,
                "kind": [k.name.lower() for k in kind],
                "part": parts,
                "sentence": batch.sentence[0, :n].tolist(),
                "attribute": [ATTRIBUTES[a] if a >= 0 else "" for a in told],
            }
        )

    def groups(self) -> list[str]:
        """Which of `GROUPS` each token that is read belongs to."""
        here = int(self.batch.sentence[0, self.start])
        found = []
        for position in range(self.start):
            kind = int(self.batch.kind[0, position])
            mine = int(self.batch.sentence[0, position]) == here
            if position == 0:
                found.append("first_token")
            elif kind == TokenKind.NAME:
                part = int(self.batch.part[0, position])
                found.append(f"{_NAME_PARTS[part]}_name" if mine else "earlier_names")
            else:
                found.append("type_words" if kind == TokenKind.TYPE and mine else "other")
        return found


def _attribute_index(attribute: str) -> int:
    """The place of an attribute, whichever way its words are joined."""
    name = "_".join(attribute.casefold().replace("-", " ").replace("_", " ").split())
    if name not in ATTRIBUTES:
        raise ArgumentError(
            f"There is no attribute {attribute!r}.{suggest(name, ATTRIBUTES)} "
            f"Attributes: {', '.join(ATTRIBUTES)}."
        )
    return ATTRIBUTES.index(name)


_NAME_PARTS = ("first", "middle", "last")
assert len(_NAME_PARTS) == len(NAME_PARTS)


class _Promoted:
    """`promoted_logits` of a model, each computed once."""

    def __init__(self, model: TransformerBridge) -> None:
        self._model = model
        self._found: dict[tuple[int, str], Tensor] = {}

    def __call__(self, layer: int, path: str) -> Float[Tensor, "neuron vocab"]:
        if (layer, path) not in self._found:
            self._found[layer, path] = promoted_logits(self._model, layer, path=path)
        return self._found[layer, path]


def _probabilities(
    model: TransformerBridge, texts: Sequence[_Text], run: Run
) -> list[tuple[float, float]]:
    """Of each text's value: the probability of its first token, and of all, given the text."""
    width = max(text.start + text.length - 1 for text in texts)
    tokens = torch.full((len(texts), width), run.tokenizer.pad_token_id, dtype=torch.long)
    rows: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for row, text in enumerate(texts):
        end = text.start + text.length
        tokens[row, : end - 1] = text.batch.tokens[0, : end - 1]
        rows += [row] * text.length
        positions += range(text.start - 1, end - 1)
        targets += text.batch.tokens[0, text.start : end].tolist()
    logits = logits_at(model, tokens, torch.tensor(rows), torch.tensor(positions))
    log_p = logits.double().log_softmax(-1).gather(1, torch.tensor(targets)[:, None])[:, 0]
    parts = log_p.split([text.length for text in texts])
    return [(float(part[0].exp()), float(part.sum().exp())) for part in parts]


def _read(
    model: TransformerBridge, text: _Text, run: Run, top: int, promoted: _Promoted
) -> dict[str, Any]:
    """Everything about a text that one forward pass gives."""
    layers = range(model.cfg.n_layers)
    names = ["hook_embed", "ln_final.hook_scale", *(pattern_hook(layer) for layer in layers)]
    if "hook_pos_embed" in model.hook_dict or "pos_embed.hook_out" in model.hook_dict:
        names.append("hook_pos_embed")
    for layer in layers:
        names += [
            f"blocks.{layer}.{point}"
            for point in (
                "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out",
                "ln1.hook_scale", "attn.hook_v", "attn.hook_z", "mlp.hook_post",
            )
        ]  # fmt: skip
    require_hooks(model, [name for name in names if name.startswith("blocks.")])
    logits, cache = model.run_with_cache(text.read, names_filter=names)
    prediction = logits[0, -1].double()
    rivals = list(text.rivals)
    difference = prediction[text.target] - prediction[rivals].mean()
    chances = prediction.softmax(-1)
    best = chances.topk(min(top, len(chances)))
    flow = _Flow(model, cache, text, rivals)
    return {
        "probability": float(chances[text.target]),
        "rank": _rank(prediction, text.target),
        "logit_difference": float(difference),
        "predictions": pd.DataFrame(
            {
                "rank": range(1, len(best.indices) + 1),
                "token": _words(run, best.indices.tolist()),
                "token_id": best.indices.tolist(),
                "probability": best.values.tolist(),
            }
        ),
        "attention": flow.attention(),
        "heads": flow.heads(),
        "components": flow.components(),
        "neurons": flow.neurons(top, promoted, run),
        "lens": _lens(model, cache, text, rivals),
    }


class _Flow:
    """Contributions to the logit difference, as products with one direction for each place.

    A *direction* says how much the logit difference grows with each coordinate of what is written
    into the residual stream at a position. In double precision, so that sums come out.
    """

    def __init__(
        self, model: TransformerBridge, cache: Any, text: _Text, rivals: Sequence[int]
    ) -> None:
        require_own_weights(model)
        self._model, self._cache, self._text = model, cache, text
        self._n_layers, self._n_heads = model.cfg.n_layers, model.cfg.n_heads
        self._at = text.places
        unembedding, bias = model.W_U.double(), model.b_U.double()
        wanted = unembedding[:, text.target] - unembedding[:, list(rivals)].mean(1)
        scale = cache["ln_final.hook_scale"][0, self._at[VALUE]]
        self._final, constant = _through_norm(model.ln_final, wanted, scale)
        constant += float(bias[text.target] - bias[list(rivals)].mean())
        self._constant = {VALUE: constant}
        # Per layer, what a unit of each head's mixed values adds: [head d_head].
        self._of_values = [
            model.W_O[layer].double() @ self._final for layer in range(self._n_layers)
        ]
        self._read_by = {at: self._readers(at) for at in NAME_TOKENS}

    def _readers(self, at: str) -> list[Float[Tensor, " d_model"]]:
        """Layer by layer, the direction that its heads read at a name token."""
        model, cache, position = self._model, self._cache, self._at[at]
        read_by, constant = [], 0.0
        for layer in range(self._n_layers):
            paid = cache[pattern_hook(layer)][0, :, self._at[VALUE], position].double()
            of_values = paid[:, None] * self._of_values[layer]
            read = (model.W_V[layer].double() @ of_values[..., None]).sum(0)[:, 0]
            scale = cache[f"blocks.{layer}.ln1.hook_scale"][0, position]
            read, shift = _through_norm(model.blocks[layer].ln1, read, scale)
            values_bias = model.b_V[layer].double().view_as(of_values)
            constant += shift + float((values_bias * of_values).sum())
            read_by.append(read)
        self._constant[at] = constant
        return read_by

    def direction(self, at: str, layer: int) -> Float[Tensor, " d_model"]:
        """Of what a part of this layer writes; layer -1 are the embeddings."""
        if at == VALUE:
            return self._final
        later = self._read_by[at][layer + 1 :]
        return torch.stack(later).sum(0) if later else torch.zeros_like(self._final)

    def components(self) -> pd.DataFrame:
        rows: list[tuple[str, str, int | None, float]] = []
        for at, position in self._at.items():
            for name in ("embed", "pos_embed"):
                if f"hook_{name}" in self._cache:
                    vector = self._cache[f"hook_{name}"][0, position]
                    title = "embedding" if name == "embed" else "position"
                    rows.append((at, title, None, _dot(vector, self.direction(at, -1))))
            for layer in range(self._n_layers):
                way = self.direction(at, layer)
                rows.append((at, "heads", layer, float(self._heads(at, layer).sum())))
                rows.append((at, "attention bias", layer, _dot(self._model.b_O[layer], way)))
                vector = self._cache[f"blocks.{layer}.hook_mlp_out"][0, position]
                rows.append((at, "mlp", layer, _dot(vector, way)))
            rows.append((at, "bias", None, self._constant[at]))
        table = pd.DataFrame(rows, columns=["at", "component", "layer", "contribution"])
        return table.astype({"layer": "Int64"})

    def _heads(self, at: str, layer: int) -> Float[Tensor, " head"]:
        z: Tensor = self._cache[f"blocks.{layer}.attn.hook_z"][0, self._at[at]].double()
        ways = self._model.W_O[layer].double() @ self.direction(at, layer)  # [head d_head]
        return (z.view_as(ways) * ways).sum(-1)

    def attention(self) -> pd.DataFrame:
        rows = []
        for at, query in self._at.items():
            for layer in range(self._n_layers):
                pattern = self._cache[pattern_hook(layer)][0, :, query, : query + 1]
                carried = torch.full_like(pattern, torch.nan).double()
                if at == VALUE:
                    of_values = self._of_values[layer]
                    values = self._cache[f"blocks.{layer}.attn.hook_v"][0].double()
                    values = values.view(len(values), *of_values.shape)
                    carried = pattern.double() * (values * of_values).sum(-1).T
                shares, moved = pattern.tolist(), carried.tolist()
                for head in range(self._n_heads):
                    both = zip(shares[head], moved[head], strict=True)
                    rows += [(at, layer, head, i, *pair) for i, pair in enumerate(both)]
        columns = ["at", "layer", "head", "position", "attention", "contribution"]
        return pd.DataFrame(rows, columns=columns)

    def heads(self) -> pd.DataFrame:
        groups = self._text.groups()
        member = torch.tensor([[g == group for group in GROUPS] for g in groups]).double()
        rows = []
        for at, query in self._at.items():
            for layer in range(self._n_layers):
                shares = self._cache[pattern_hook(layer)][0, :, query].double() @ member
                found = self._heads(at, layer).tolist()
                for head in range(self._n_heads):
                    rows.append((at, layer, head, *shares[head].tolist(), found[head]))
        return pd.DataFrame(rows, columns=["at", "layer", "head", *GROUPS, "contribution"])

    def neurons(self, top: int, promoted: _Promoted, run: Run) -> pd.DataFrame:
        rows = []
        for at, position in self._at.items():
            for layer in range(self._n_layers - (at != VALUE)):  # nobody reads the last layer there
                active = self._cache[f"blocks.{layer}.mlp.hook_post"][0, position].double()
                share = active * (self._model.W_out[layer].double() @ self.direction(at, layer))
                logits = promoted(layer, "direct" if at == VALUE else "attention")
                for neuron in share.abs().topk(min(top, len(share))).indices.tolist():
                    of_neuron = logits[neuron]
                    best = of_neuron.topk(min(_N_PROMOTED, len(of_neuron))).indices.tolist()
                    rows.append(
                        (
                            at, layer, neuron, float(active[neuron]), float(share[neuron]),
                            tuple(_words(run, best)), _rank(of_neuron, self._text.target),
                        )
                    )  # fmt: skip
        columns = ["at", "layer", "neuron", "activation", "contribution", "promotes", "value_rank"]
        return pd.DataFrame(rows, columns=columns)


def _lens(model: TransformerBridge, cache: Any, text: _Text, rivals: Sequence[int]) -> pd.DataFrame:
    """What the residual stream would predict if no later block followed."""
    values = [text.target, *rivals]
    rows = []
    for at, position in text.places.items():
        for layer in range(model.cfg.n_layers):
            for site in ("resid_pre", "resid_mid", "resid_post"):
                stream = cache[f"blocks.{layer}.hook_{site}"][:, position : position + 1]
                logits = model.unembed(model.ln_final(stream))[0, 0].double()
                rows.append(
                    (
                        at, layer, site, float(logits.softmax(-1)[text.target]),
                        _rank(logits, text.target), _rank(logits[values], 0),
                        float(logits[text.target] - logits[list(rivals)].mean()),
                    )
                )  # fmt: skip
    columns = ["at", "layer", "site", "probability", "rank", "rank_among_values"]
    return pd.DataFrame(rows, columns=[*columns, "logit_difference"])


def _through_norm(
    bridge: Any, after: Float[Tensor, " d_model"], scale: Float[Tensor, " 1"]
) -> tuple[Float[Tensor, " d_model"], float]:
    """The direction before a norm that equals one after it, and what the norm's bias adds."""
    layer: nn.Module = bridge.original_component
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    before = after if weight is None else after * weight.double()
    before = before / scale.double()
    if isinstance(layer, nn.LayerNorm):  # RMSNorm does not subtract the mean
        before = before - before.mean()
    return before, 0.0 if bias is None else float(bias.double() @ after)


def _dot(vector: Tensor, direction: Tensor) -> float:
    return float(vector.double() @ direction)


def _rank(scores: Tensor, index: int) -> int:
    """1 for the highest; tokens that tie with it come after."""
    return int((scores > scores[index]).sum()) + 1


def _words(run: Run, ids: Sequence[int]) -> list[str]:
    return [str(run.tokenizer.decode([token])).strip() or " " for token in ids]


def _strongest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order[:n]].reset_index(drop=True)


def _escaped(text: object) -> str:
    return html.escape(str(text))


def _require_one_of(what: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise ArgumentError(
            f"{what}={given!r} is not known.{suggest(given, known)} Choose from {', '.join(known)}."
        )
