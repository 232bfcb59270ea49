"""What the study of fine-tuning measured in each seed: numbers for its rules, and words for its claims."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from statistics import fmean

import pandas as pd

from interp.knowledge import Split
from interp.memory.transplant import ATTENTION_MATRICES, MLP_MATRICES
from interp.plots.associative_memory import weight_name
from interp.seeds import spread
from interp.studies.forgetting import Forgetting, by_step, first, last
from interp.studies.study import Tables

READ: tuple[Split, Split] = ("evaluation", "finetuned")
"""Whom it is asked of: old people, and those whom fine-tuning is on; in wordings never seen with them."""
OLD, TUNED = READ


@dataclass(frozen=True)
class Seed(Forgetting):
    """What was measured in the runs of one seed.

    Attributes:
        tables: The rows of each table without replay.
    """

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def among(cls, tables: Tables, seed: int) -> "Seed":
        """A seed's part of the study's tables."""
        rows = {name: table[table["seed"] == seed] for name, table in tables.items()}
        curves = rows["curves"][rows["curves"]["metric"] == "attribute_accuracy"]
        rows["curves"] = curves
        plain = {name: table[table["replay_weight"].isna()] for name, table in rows.items()}
        return cls.of(curves[curves["variant"] == "new"], *READ, tables=plain)

    def rows(self, name: str, variant: str = "new") -> pd.DataFrame:
        """The rows of one run without replay."""
        return self.tables[name][self.tables[name]["variant"] == variant]

    def accuracy(self, split: str, variant: str) -> pd.Series:
        """Accuracy by step, without replay; empty if it was not measured."""
        return by_step(self.rows("curves", variant), split)

    def lost_share(self, variant: str) -> float:
        """The share of the old accuracy that is lost in the end; NaN if it was not measured."""
        old = self.accuracy(OLD, variant)
        return 1 - last(old) / first(old) if first(old) > 0 else float("nan")

    def attention_changes(self) -> pd.DataFrame:
        """The largest change of each attention measure on old people, by metric and layer."""
        table = self.rows("attention")
        values = (
            table[table["split"] == OLD]
            .astype({"value": float})
            .pivot_table(values="value", index="step", columns=["metric", "layer"])
        )
        if len(values) < 2:
            return pd.DataFrame()
        change = (values - values.iloc[0]).abs().max().rename("change")
        return change.reset_index().assign(before=values.iloc[0].to_numpy())

    def transplanted(self, how: str, part: str = "") -> float:
        """Accuracy on old people with parts exchanged; NaN if it was not measured."""
        table = self.rows("transplants")
        exchanged = (table["transplant"] == how) & (table["part"].fillna("") == part)
        return first(table[exchanged & (table["split"] == OLD)]["value"])

    def moved(self, parts: Sequence[str]) -> float:
        """How far some weights moved, the mean over layers; NaN if it was not measured."""
        table = self.rows("weights")
        return float(table[table["part"].isin(parts)]["value"].astype(float).mean())


def ends(seeds: Sequence[Seed], split: str, variant: str) -> str:
    """Accuracy at the beginning and in the end, as text."""
    curves = [curve for seed in seeds if len(curve := seed.accuracy(split, variant))]
    if not curves:
        return "not measured"
    start, end = spread(map(first, curves)), spread(map(last, curves))
    return f"{start} before, {end} after {int(curves[0].index[-1]):,} steps"


def _known_values(values: Iterable[float]) -> list[float]:
    return [value for value in values if not isnan(value)]


def _mean(values: Iterable[float]) -> str:
    known = _known_values(values)
    return f"{fmean(known):.2f}" if known else "not measured"


def collapse(seeds: Sequence[Seed]) -> str:
    """What is left of old knowledge, and when half of it is lost."""
    steps = [seed.half_lost for seed in seeds]
    when = ", ".join("never" if step is None else f"{step:,}" for step in steps)
    return f"accuracy on old people {ends(seeds, OLD, 'new')}; below half from step {when}"


def order(seeds: Sequence[Seed]) -> str:
    """What of the new is known while the old is lost."""
    words = []
    for step in (40, 400):
        both = [seed for seed in seeds if step in seed.old.index and step in seed.new.index]
        if both:
            old, new = fmean(s.old[step] for s in both), fmean(s.new[step] for s in both)
            words.append(f"at step {step} accuracy {old:.2f} on old, {new:.2f} on new people")
    halves = [s.new[s.half_lost] for s in seeds if s.half_lost is not None and len(s.new)]
    words.append(
        f"accuracy on new people when half of the old is lost {spread(halves)}"
        if halves
        else "half of the old is never lost"
    )
    return "; ".join(words)


def replay(seeds: Sequence[Seed]) -> str:
    """Where each replay weight ends, the mean over seeds."""
    old_end, new_end = (
        _mean(last(seed.old) for seed in seeds),
        _mean(last(seed.new) for seed in seeds),
    )
    words = [f"no replay {old_end} and {new_end}"]
    for weight in sorted({weight for seed in seeds for weight in seed.replayed}):
        pairs = [seed.replayed[weight] for seed in seeds if weight in seed.replayed]
        old, new = (fmean(values) for values in zip(*pairs, strict=True))
        words.append(f"weight {weight_name(weight)}: {old:.2f} and {new:.2f}")
    return f"final accuracy on old and on new people: {', '.join(words)}"


def attention(seeds: Sequence[Seed]) -> str:
    """How far attention measures change."""
    found = [changes for seed in seeds if len(changes := seed.attention_changes())]
    if not found:
        return "not measured"
    largest = spread(changes["change"].max() for changes in found)
    worst = found[0].sort_values("change").iloc[-1]
    name = str(worst["metric"]).replace("_", " ")
    return (
        f"largest change {largest}; in the first seed that of {name} in layer {int(worst['layer'])}, "
        f"{worst['before']:.2f} before"
    )


def transplants(seeds: Sequence[Seed]) -> str:
    """What the model knows with parts exchanged, the mean over seeds."""
    words = {
        ("none", ""): "before",
        ("all", ""): "after",
        ("only", "MLP"): "with only MLPs fine-tuned",
        ("only", "attention"): "only attention",
        ("only", "embeddings"): "only embeddings and unembedding",
        ("all but", "MLP"): "with only MLPs put back",
        ("all but", "attention"): "only attention put back",
    }
    values = {place: _known_values(s.transplanted(*place) for s in seeds) for place in words}
    said = [f"{words[place]} {fmean(found):.2f}" for place, found in values.items() if found]
    return f"accuracy on old people {', '.join(said)}" if said else "not measured"


def movement(seeds: Sequence[Seed]) -> str:
    """How far weights move, and which keys turn most."""
    mlp, attention, embeddings = (
        spread(_known_values(seed.moved(parts) for seed in seeds))
        for parts in (MLP_MATRICES, ATTENTION_MATRICES, ("W_E", "W_U"))
    )
    moved = f"MLP {mlp}, attention {attention}, embedding and unembedding {embeddings}"
    keys = pd.concat([seed.rows("keys") for seed in seeds])
    if keys.empty:
        return moved
    last_step = keys[keys["step"] == keys["step"].max()]
    turned = last_step.groupby(["layer", "position"], as_index=False)[["value", "control"]].mean()
    most = turned.sort_values("value").iloc[-1]
    return (
        f"{moved}; keys of old people turned most in layer {most['layer']} at the position "
        f"'{most['position']}': 1 - cosine {most['value']:.2f}, between different people "
        f"{most['control']:.2f}"
    )


def scale(table: pd.DataFrame) -> str:
    """How large the runs on new people are, as text."""
    new = table[table["variant"] == "new"]
    if new.empty:
        return ""
    row = new.iloc[0]
    rates = f"{row['learning_rate']:g} after {row['base_learning_rate']:g}"
    return f" ({row['people']:,} new, {row['old_people']:,} old people; learning rate {rates})"
