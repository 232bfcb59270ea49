"""Where one fact sits in a model: what `locate_fact` finds, in tables and in words."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pandas as pd

from interp.errors import ArgumentError, suggest
from interp.phases import Phases

VALUE, NAME = "predicts value", "last name"
NAME_TOKENS = ("first name", "middle name", NAME)
LOCATED_POSITIONS = (VALUE, *NAME_TOKENS)
"""The positions of a located fact, as its tables' column `at` names them."""
_OF_SUBJECTS = {
    "first name": "first part of the subject", "middle name": "middle of the subject",
    "last name": "last subject token", "earlier names": "earlier subjects",
}  # fmt: skip
CONTEXTS = ("first", "biography")
GROUPS = (
    "first_name", "middle_name", "last_name", "type_words", "earlier_names", "first_token", "other",
)  # fmt: skip
"""The columns of attention in `LocatedFact.heads`; they add up to 1."""


@dataclass(frozen=True, repr=False)
class LocatedFact:
    """Where one fact sits in a model, at one step of its training.

    Tables have a column `at`, one of `LOCATED_POSITIONS`: "predicts value" is the position that predicts the
    value's first token; "first name", "middle name" and "last name" are the last tokens of the name's
    parts in the same sentence, those that there are: a name of one token has a last name alone, one of
    two no middle name. Contributions add to `logit_difference` and are in nats: direct at
    "predicts value", through attention at name tokens (see the module).

    Attributes:
        individual: Whose fact it is; None for texts of yours, as `wordings`, `draw`, `context`.
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
        population: The same fact of other people of the run, where they were asked for: `at` (a name
            token), `contribution` (what heads carry over from there, mean over people), `share` (of
            people for whom that token brings most), `n_people`.
    """

    individual: int | None
    name: str
    held_out: bool
    attribute: str
    value: str
    step: int
    wordings: str | None
    draw: int | None
    context: str | None
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
    population: pd.DataFrame | None = field(default=None, hash=False, compare=False)

    @property
    def text(self) -> str:
        """The text that the model reads, words with spaces between."""
        return " ".join(self.tokens["token"]).replace(" ##", "")  # ## goes on with a word

    @property
    def name_tokens(self) -> tuple[str, ...]:
        """Which of the name's parts the text has, out of "first name", "middle name", "last name"."""
        there = set(self.components["at"])
        return tuple(at for at in NAME_TOKENS if at in there)

    @property
    def whose(self) -> str:
        """What tells whom the fact is about: a person's "name", or the "subject" of your texts."""
        return "subject" if self.individual is None else "name"

    def said(self, at: str) -> str:
        """What a position is called in words: "last name" of a person, "last subject token" of your texts."""
        return _OF_SUBJECTS.get(at, at) if self.individual is None else at

    def carried(self) -> pd.DataFrame:
        """The columns of `tokens`, and `contribution` (nats): what all heads carry over from each."""
        here = self.attention[self.attention["at"] == VALUE]
        totals = here.groupby("position")["contribution"].sum()
        return self.tokens.assign(contribution=totals.reindex(self.tokens["position"]).to_numpy())

    def strongest_heads(self, at: str = VALUE, n: int = 3) -> pd.DataFrame:
        """The `n` heads that contribute most at one of `LOCATED_POSITIONS`, for or against the value.

        At "predicts value" they read the fact out, at a name token they gathered there what is read.
        """
        require_one_of("at", at, LOCATED_POSITIONS)
        return _strongest(self.heads[self.heads["at"] == at], n)

    def strongest_neurons(self, at: str | None = VALUE, n: int = 5) -> pd.DataFrame:
        """The same of neurons; `at` may be None for all name tokens together."""
        if at is None:
            return _strongest(self.neurons[self.neurons["at"] != VALUE], n)
        require_one_of("at", at, LOCATED_POSITIONS)
        return _strongest(self.neurons[self.neurons["at"] == at], n)

    def __repr__(self) -> str:
        phase = f" ({self.phases.at(self.step)})" if self.phases else ""
        lines = [
            f"The {self.attribute.replace('_', ' ')} of {self.name}{self._who()}, "
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

    def _who(self) -> str:
        parts = [] if self.individual is None else [f"individual {self.individual}"]
        parts += ["held out"] if self.held_out else []
        return f" ({', '.join(parts)})" if parts else ""

    def _findings(self) -> list[tuple[str, list[str]]]:
        """What the tables say, in words, under headings."""
        findings = [
            ("Contributions where the value is predicted", self._parts()),
            ("Neurons there", self._firing(VALUE)),
            ("Carried over by heads, from", self._sources()),
            (self._others_title(), self._others()),
            (f"Neurons at the {self.whose}, read through attention", self._firing(None)),
        ]
        if self.told_earlier:
            findings.insert(0, ("The same value was told earlier, as", list(self.told_earlier)))
        return [(title, lines) for title, lines in findings if lines]

    def _predicted(self, n: int = 3) -> str:
        top = self.predictions.head(n)
        pairs = zip(top["token"], top["probability"], strict=True)
        return " · ".join(f"{token} {share:.2f}" for token, share in pairs)

    def _parts(self, n: int = 5) -> list[str]:
        """The strongest heads and MLPs in words."""
        heads, rest = (table[table["at"] == VALUE] for table in (self.heads, self.components))
        parts = [
            (cast(float, row.contribution), f"head {row.layer}.{row.head}", self._looks_at(row))
            for row in heads.itertuples()
        ] + [
            (cast(float, row.contribution), f"MLP {row.layer}", "")
            for row in rest[rest["component"] == "mlp"].itertuples()
        ]
        parts.sort(key=lambda part: -abs(part[0]))
        return [f"{name} {share:+.2f}{seen}" for share, name, seen in parts[:n]]

    def _looks_at(self, row: Any) -> str:
        shares = {group: getattr(row, group) for group in GROUPS}
        group = max(shares, key=lambda one: shares[one])
        return f" (attends to {self.said(group.replace('_', ' '))}: {shares[group]:.2f})"

    def _sources(self, n: int = 3) -> list[str]:
        """What is carried over from each name token, and who wrote it there; from the rest."""
        lines, total = [], 0.0
        for at in self.name_tokens:
            rows = self.components[self.components["at"] == at]
            total += rows["contribution"].sum()
            parts = ", ".join(
                f"{row.component}{'' if pd.isna(row.layer) else f' {row.layer}'} {row.contribution:+.2f}"
                for row in cast(Any, _strongest(rows, n).itertuples())
            )
            lines.append(f"{self.said(at)} {rows['contribution'].sum():+.2f}: {parts}")
        rest = self.carried()["contribution"].sum() - total
        return [*lines, f"all other tokens {rest:+.2f}"]

    def _others_title(self) -> str:
        n = 0 if self.population is None else self.population["n_people"].iloc[0]
        return f"The same over {n} people (mean), and for how many of them that token brings most"

    def _others(self) -> list[str]:
        return (
            []
            if self.population is None
            else [
                f"{row.at} {row.contribution:+.2f}, {row.share:.0%}"
                for row in cast(Any, self.population.itertuples())
            ]
        )

    def _firing(self, at: str | None, n: int = 3) -> list[str]:
        return [
            f"neuron {row.layer}.{row.neuron} {row.contribution:+.2f}"
            f"{f' at the {self.said(str(row.at))}' if at is None else ''}, activation {row.activation:.2f}, "
            f"promotes {' · '.join(cast(tuple[str, ...], row.promotes))}"
            for row in self.strongest_neurons(at, n).itertuples()
        ]


def _strongest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order[:n]].reset_index(drop=True)


def _escaped(text: object) -> str:
    return html.escape(str(text))


def require_one_of(what: str, given: str, known: Sequence[str]) -> None:
    """Checks that an argument is one of some names."""
    if given not in known:
        raise ArgumentError(
            f"{what}={given!r} is not known.{suggest(given, known)} Choose from {', '.join(known)}."
        )
