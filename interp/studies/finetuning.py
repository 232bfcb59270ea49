"""Fine-tuning on new people.

What becomes of what a model knew when it is fine-tuned on new people, what does replay save, and where is
the damage done? (paper, Fig. 5, N, O, P)

Command: interp batch finetuning --out artifacts/studies --workers 2
Duration: 12 runs of 500 steps on 6 of 1,500 and 1,000, half a minute to 90 seconds each on one core

A model that knows the people of its training goes on with new people only, or with old ones replayed
at several weights; another, trained on people of whom some come rarely, goes on with the rare. Beside
what is known of whom, three things are followed: attention to names, the keys of old people in MLP
layers, and the weights. Where the damage is done is seen by *transplanting*: single parts of the
fine-tuned model are put into the model before, and back.

All comparisons are with step 0 of the fine-tuned run itself, whose weights are the base's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from statistics import fmean
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
import torch
from pydantic import Field, field_validator
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.attention.names import attention_to_names, by_layer
from interp.config import Config
from interp.errors import ConfigError
from interp.knowledge import (
    METRICS,
    Split,
    measured_individuals,
    split_batch,
    value_table,
)
from interp.memory.activations import POSITIONS, CachedActivations, cache_activations, draw_batches
from interp.plots.associative_memory import weight_name
from interp.plots.finetuning import (
    accuracy_curves,
    attention_curves,
    key_movement,
    old_against_new,
    transplants,
    weight_movement,
)
from interp.run import Run, finetuned
from interp.seeds import spread
from interp.series import models_at, nearest_steps
from interp.studies.distribution import DistributionSettings
from interp.studies.rules import Claim, verdict
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

KNOWN = 0.9
"""Accuracy on old people that there has to be before fine-tuning on new ones: else there is little to
forget."""
SOON = 500
"""What "within a few hundred steps" means, in steps of fine-tuning."""
HELP = 0.1
"""By how much replay has to raise the final accuracy on old people to be a help."""
BOTH = 0.9
"""Share of old knowledge kept, and of the new learned, that is as good as all."""
STABLE = 0.1
"""The largest change of an attention measure (a share, or sharpness) that is still stable."""
RAISED = 0.1
"""By how much accuracy on rare people has to rise."""
HARMLESS = 0.5
"""What share of the forgetting by new people is, at most, "no such harm" by rare ones."""
RARELY_KNOWN, OTHERS_KNOWN = 0.2, 0.5
"""Accuracies on rare people, and on the others, that a model has to have to know both."""
FORGOTTEN = 0.1
"""Accuracy on old people that has to be lost, for a question about that loss to have an answer."""
TWICE = 2.0
"""How many times more harm MLP layers alone do than attention alone, to be where it is done."""
FURTHER = 1.25
"""How many times further one kind of weights moves, to move further than another."""
READ = ("evaluation", "finetuned")
"""Whom it is asked of: old people, and those whom fine-tuning is on; in wordings never seen with them."""
ATTENTION = ("name_to_name", "attribute_to_name", "name_sharpness", "attribute_sharpness")
"""Attention measures that are followed (see `interp.attention.names`)."""
MATRICES = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out")
"""Weights of a layer whose movement is measured, beside embeddings, positions and unembedding."""
PARTS: dict[str, tuple[str, ...]] = {
    "embeddings": ("embed.", "pos_embed.", "ln_final.", "unembed."),
    "attention": (".attn.", ".ln1."),
    "MLP": (".mlp.", ".ln2."),
}
"""The parts of a model, by what the names of their weights hold."""


class FinetuningSettings(StudySettings):
    """Settings of the study of fine-tuning.

    `run` changes the base runs; fine-tuned runs have their base's settings but for those named here.
    """

    n_steps: int = Field(default=500, ge=1)
    """Steps of fine-tuning."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """The constant learning rate of fine-tuning."""
    checkpoints: tuple[int, ...] = (0, 2, 5, 10, 20, 50, 100, 200)
    """Steps of fine-tuning with a checkpoint, beside the last one."""
    every: int = Field(default=10, ge=1)
    """Steps of fine-tuning between measurements."""
    replay_weights: tuple[float | None, ...] = (None, 1 / 32, 1 / 8, 1 / 2, 2.0)
    """How likely each old person is in fine-tuning on new people, against 1 for a new one; None: no
    replay."""
    rare_exponent: float = Field(default=0.6, ge=0)
    """Exponent of the power law that the base of fine-tuning on rare people was trained with: such that
    these are known about half, as in the paper."""
    rare_population: int = Field(default=512, ge=2)
    """How many people that base was trained on."""
    rare_base_steps: int = Field(default=1000, ge=1)
    """Steps of that base."""
    n_rare: int = Field(default=128, ge=1)
    """How many of these people, the rarest, fine-tuning is on."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"sampling", "finetuning", "population.n_individuals"}
    )

    @field_validator("replay_weights")
    @classmethod
    def _weights_once(cls, weights: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return each_once("replay_weights", weights)

    def base(self, seed: int) -> Config:
        """The run that fine-tuning on new people starts from: the preset as it is."""
        return self.config(seed)

    def rare_base(self, seed: int) -> Config:
        """The run that fine-tuning on rare people starts from: one of the study of power laws."""
        settings = DistributionSettings(
            preset=self.preset, seeds=self.seeds, run=self.run, n_steps=self.rare_base_steps
        )
        sampling = {"kind": "power_law", "exponent": self.rare_exponent}
        return settings.distribution(seed, self.rare_population, sampling)

    def finetuning(self, base: Config, **changes: Any) -> Planned:
        """A run that goes on from the last checkpoint of another."""
        every = {
            "sampling": {"kind": "uniform"},
            "optimizer.schedule": "constant",
            "optimizer.learning_rate": self.learning_rate,
            "training.n_steps": self.n_steps,
            "training.stop_at": None,
            "training.stop_below": None,
            "training.early_checkpoints": self.checkpoints,
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": self.every,
            "evaluation.splits": ("evaluation", "finetuned"),
        }
        return Planned(finetuned(base, **(every | changes)), Planned(base))


def planned(settings: FinetuningSettings) -> list[Planned]:
    """The runs that settings ask for: on new people with each replay weight, and on rare ones.

    Raises:
        ConfigError: the model has no attention to be read, or there are too few people.
    """
    if (recurrence := settings.base(settings.seeds[0]).model.recurrence) is not None:
        raise ConfigError(
            f"finetuning: model.recurrence={recurrence!r} has no attention, which this study reads; leave "
            "it out."
        )
    runs = [
        settings.finetuning(
            settings.base(seed),
            **{"finetuning.people": "new", "finetuning.replay_weight": weight},
        )
        for weight in settings.replay_weights
        for seed in settings.seeds
    ]
    rare = {"finetuning.people": "rare", "finetuning.n_individuals": settings.n_rare}
    return runs + [settings.finetuning(settings.rare_base(s), **rare) for s in settings.seeds]


def tables(settings: FinetuningSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        Tables that begin with `seed`, `variant` ("new" or "rare" people), `replay_weight` (NaN: no
        replay):

        "scale": `people` of fine-tuning and `old_people`, `learning_rate` and `base_learning_rate`.
        "curves": `step`, `split` ("evaluation": old people, "finetuned"), `metric` ("attribute_loss" in
        nats, "attribute_accuracy", a share), `value`.
        "attention": `step`, `split`, `layer`, `metric` (`ATTENTION`), `value`, the mean over heads.
        "keys": `step`, `layer`, `position` (of `activations.POSITIONS`), `value` and `control`: how far the
        key vectors of old people turned, 1 - cosine with those before fine-tuning; and 1 - cosine
        between two different people before it.
        "weights": `layer` (NA: of no layer), `part` (`MATRICES`, "W_E", "W_pos", "W_U"), `value`: the norm
        (Frobenius) of the change at the last step, a share of the norm before.
        "transplants": `transplant` ("none", "only": this part is fine-tuned and the rest as before,
        "all but": the other way round, "all"), `part`, `split`, `value`: accuracy at the last step.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        config = run.config
        weight = config.finetuning.replay_weight
        own = {
            "seed": config.seed,
            "variant": config.finetuning.people,
            "replay_weight": nan if weight is None else weight,
        }
        scale = {
            "people": config.n_finetuned,
            "old_people": config.population.n_individuals
            - (config.n_finetuned if config.finetuning.people == "rare" else 0),
            "learning_rate": config.optimizer.learning_rate,
            "base_learning_rate": Run.load(
                config.finetuning.base or ""
            ).config.optimizer.learning_rate,
        }
        parts.setdefault("scale", []).append(pd.DataFrame([own | scale]))
        for name, table in measures(run).items():
            for place, (column, value) in enumerate(own.items()):
                table.insert(place, column, value)
            parts.setdefault(name, []).append(table)
    joined = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    return {name: table.round(5) for name, table in joined.items()}


def measures(run: Run) -> dict[str, pd.DataFrame]:
    """The tables of one fine-tuned run, without the columns that tell runs apart."""
    every = run.metrics
    curves = every[
        (every["attribute"] == "all")
        & every["split"].isin(READ)
        & every["metric"].isin(["attribute_loss", "attribute_accuracy"])
    ]
    weights, transplanted = _weights_and_transplants(run)
    return {
        "curves": curves[["step", "split", "metric", "value"]].reset_index(drop=True),
        "attention": _attention(run),
        "keys": _keys(run),
        "weights": weights,
        "transplants": transplanted,
    }


def _attention(run: Run) -> pd.DataFrame:
    """The attention measures at four checkpoints, on old people and on those of fine-tuning."""
    steps = _few(run.steps)
    found = []
    for split in _splits(run):
        scores = by_layer(
            attention_to_names(run, steps, run.config.evaluation.n_individuals, split)
        )
        chosen = scores[scores["metric"].isin(ATTENTION)].drop(columns="chance")
        chosen.insert(1, "split", split)
        found.append(chosen)
    return pd.concat(found, ignore_index=True)


def _keys(run: Run) -> pd.DataFrame:
    """How far the keys of old people turned, at four checkpoints."""
    old = measured_individuals(run.corpus, "evaluation", run.config.evaluation.n_individuals)
    batches = draw_batches(run.corpus, old, "evaluation", (0,))
    before: CachedActivations | None = None
    rows = []
    for step, model in models_at(run, _few(run.steps)):
        now = cache_activations(model, batches, sites=[])
        if before is None:
            before = now
        for layer, keys in now.neurons.items():
            turned = _turned(keys, before.neurons[layer])
            others = _turned(before.neurons[layer].roll(1, dims=3), before.neurons[layer])
            for place, position in enumerate(POSITIONS):
                rows.append((step, layer, position, float(turned[place]), float(others[place])))
    return pd.DataFrame(rows, columns=["step", "layer", "position", "value", "control"])


def _turned(x: Tensor, y: Tensor) -> Tensor:
    """1 - cosine along the last dimension, the mean over all others but the first."""
    return (1 - torch.cosine_similarity(x, y, dim=-1)).flatten(1).double().mean(dim=1)


def _weights_and_transplants(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How far each matrix moved, and what the model knows with single parts exchanged."""
    most = run.config.evaluation.n_individuals
    batches = {split: split_batch(run.corpus, split, most) for split in _splits(run)}
    states: list[dict[str, Tensor]] = []
    matrices: list[dict[tuple[int | None, str], Tensor]] = []
    for _, model in models_at(run, (run.steps[0], run.steps[-1])):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        matrices.append({place: value.clone() for place, value in _matrices(model).items()})
    before, after = states[0], states[-1]
    moved = [
        (layer, part, float((matrices[-1][layer, part] - old).norm() / old.norm()))
        for (layer, part), old in matrices[0].items()
    ]
    weights = pd.DataFrame(moved, columns=["layer", "part", "value"]).astype({"layer": "Int64"})
    chosen: dict[str, Callable[[str], bool]] = {
        part: lambda name, words=words: any(word in f".{name}" for word in words)  # type: ignore[misc]
        for part, words in _parts(run.config.model.n_layers).items()
    }
    rows = []

    def transplant(how: str, part: str, state: Mapping[str, Tensor]) -> None:
        model.load_state_dict(state)
        for split, batch in batches.items():
            accuracy = value_table(model, batch)[METRICS.index("attribute_accuracy")].mean()
            rows.append((how, part, split, float(accuracy)))

    transplant("none", "", before)
    transplant("all", "", after)
    for part, belongs in chosen.items():
        own = {name for name in before if belongs(name)}
        transplant("only", part, {n: after[n] if n in own else before[n] for n in before})
        transplant("all but", part, {n: before[n] if n in own else after[n] for n in before})
    columns = ["transplant", "part", "split", "value"]
    return weights, pd.DataFrame(rows, columns=columns)


def _parts(n_layers: int) -> dict[str, tuple[str, ...]]:
    """What the names of the weights of each part hold: of `PARTS`, and of the MLP of each layer."""
    layers = {
        f"MLP {layer}": tuple(f".blocks.{layer}{word}" for word in PARTS["MLP"])
        for layer in range(n_layers)
    }
    return PARTS | (layers if n_layers > 1 else {})


def _matrices(model: TransformerBridge) -> dict[tuple[int | None, str], Tensor]:
    """The weight matrices by layer and name."""
    layers: dict[tuple[int | None, str], Tensor] = {
        (layer, name): getattr(model, name)[layer].detach()
        for layer in range(model.cfg.n_layers)
        for name in MATRICES
    }
    others = (
        ("W_E", "W_pos", "W_U")
        if model.cfg.positional_embedding_type == "standard"
        else ("W_E", "W_U")
    )
    return {(None, name): getattr(model, name).detach() for name in others} | layers


def _splits(run: Run) -> list[Split]:
    """Old people, and those of fine-tuning; the former may all be among the latter."""
    splits: tuple[Split, ...] = ("evaluation", "finetuned")
    return [split for split in splits if len(measured_individuals(run.corpus, split))]


def _few(steps: Sequence[int]) -> list[int]:
    """The first and the last checkpoint, and those nearest to a tenth and to four tenths between."""
    wanted = (steps[0], steps[-1] / 10, 0.4 * steps[-1], steps[-1])
    return nearest_steps(steps, wanted)


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "finetuning-curves": ("curves", accuracy_curves),
        "finetuning-tradeoff": ("curves", old_against_new),
        "finetuning-attention": ("attention", attention_curves),
        "finetuning-transplants": ("transplants", transplants),
        "finetuning-weights": ("weights", weight_movement),
        "finetuning-keys": ("keys", key_movement),
    }
    return {anchor: draw(tables[n]) for anchor, (n, draw) in drawn.items() if n in tables}


class _Seed:
    """What was measured in the runs of one seed."""

    def __init__(self, tables: Tables, seed: int) -> None:
        self.tables = {}
        for name, table in tables.items():
            weights = pd.to_numeric(table["replay_weight"]).astype(float).fillna(0.0)
            self.tables[name] = table.assign(replay_weight=weights)[table["seed"] == seed]

    def rows(self, name: str, variant: str = "new", weight: float = 0.0) -> pd.DataFrame:
        """The rows of one run."""
        if name not in self.tables:
            return pd.DataFrame()
        table = self.tables[name]
        return table[(table["variant"] == variant) & (table["replay_weight"] == weight)]

    def accuracy(self, split: str, variant: str = "new", weight: float = 0.0) -> pd.Series | None:
        """Accuracy over fine-tuning, by step; None if it was not measured."""
        table = self.rows("curves", variant, weight)
        if table.empty:
            return None
        own = table[(table["metric"] == "attribute_accuracy") & (table["split"] == split)]
        return None if own.empty else own.set_index("step")["value"].sort_index()

    @property
    def old(self) -> pd.Series | None:
        """Accuracy on old people while fine-tuning on new ones without replay; None unless known."""
        found = self.accuracy("evaluation")
        return found if found is not None and found.iloc[0] >= KNOWN else None

    @property
    def half_lost(self) -> int | None:
        """The first measured step with less than half of the old accuracy; None if there is none."""
        old = self.accuracy("evaluation")
        lost = [] if old is None else old.index[old < old.iloc[0] / 2]
        return int(lost[0]) if len(lost) else None

    def collapses(self) -> bool | None:
        """Whether half of what was known is lost soon."""
        if self.old is None or (self.half_lost is None and self.old.index[-1] < SOON):
            return None
        return self.half_lost is not None and self.half_lost <= SOON

    def loses_first(self) -> bool | None:
        """Whether half of the old is lost before half of the new is known; None if it is not lost."""
        new = self.accuracy("finetuned")
        if self.old is None or self.half_lost is None or new is None:
            return None
        return bool(new[self.half_lost] < 0.5)

    def replayed(self) -> dict[float, tuple[float, float]]:
        """Final accuracies on old and on new people, by replay weight; none without is left out."""
        if "curves" not in self.tables:
            return {}
        table = self.tables["curves"]
        found = {}
        for weight in sorted(table.loc[table["variant"] == "new", "replay_weight"].unique()):
            old, new = (self.accuracy(split, "new", weight) for split in READ)
            if weight > 0 and old is not None and new is not None:
                found[float(weight)] = (float(old.iloc[-1]), float(new.iloc[-1]))
        return found

    def replay_helps(self) -> bool | None:
        """Whether the heaviest replay keeps noticeably more."""
        ends = self.replayed()
        if self.old is None or not ends:
            return None
        if self.old.iloc[0] - self.old.iloc[-1] < FORGOTTEN:
            return None
        return bool(ends[max(ends)][0] - self.old.iloc[-1] >= HELP)

    def replay_is_partial(self) -> bool | None:
        """Whether no replay weight keeps the old and learns the new."""
        ends, new = self.replayed(), self.accuracy("finetuned")
        if self.old is None or not ends or new is None or new.iloc[-1] < BOTH:
            return None
        start = self.old.iloc[0]
        if start - self.old.iloc[-1] < FORGOTTEN:
            return None
        return not any(old >= BOTH * start and new >= BOTH for old, new in ends.values())

    def attention_changes(self, variant: str = "new") -> pd.DataFrame:
        """The largest change of each attention measure on old people, by metric and layer."""
        table = self.rows("attention", variant)
        if table.empty:
            return table
        own = table[table["split"] == "evaluation"]
        values = own.pivot_table(values="value", index="step", columns=["metric", "layer"])
        if len(values) < 2:
            return pd.DataFrame()
        change = (values - values.iloc[0]).abs().max().rename("change")
        return change.reset_index().assign(before=values.iloc[0].to_numpy())

    def attention_is_stable(self) -> bool | None:
        """Whether no attention measure changes much."""
        changes = self.attention_changes()
        if self.old is None or changes.empty or self.old.iloc[0] - self.old.iloc[-1] < FORGOTTEN:
            return None
        return bool(changes["change"].max() <= STABLE)

    def lost_share(self, variant: str) -> float | None:
        """The share of the old accuracy that is lost in the end, without replay."""
        old = self.accuracy("evaluation", variant)
        if old is None or old.iloc[0] <= 0:
            return None
        return float(1 - old.iloc[-1] / old.iloc[0])

    @property
    def rare_is_known(self) -> bool:
        """Whether the model that is fine-tuned on rare people knows them somewhat, and the others."""
        rare, others = (self.accuracy(split, "rare") for split in ("finetuned", "evaluation"))
        if rare is None or others is None:
            return False
        return bool(rare.iloc[0] >= RARELY_KNOWN and others.iloc[0] >= OTHERS_KNOWN)

    def rare_is_harmless(self) -> bool | None:
        """Whether fine-tuning on rare people costs much less than on new ones."""
        rare, new = self.lost_share("rare"), self.lost_share("new")
        if rare is None or new is None or self.old is None or new < FORGOTTEN:
            return None
        return rare <= HARMLESS * new if self.rare_is_known else None

    def rare_rises(self) -> bool | None:
        """Whether the rare get known; None if they were."""
        rare = self.accuracy("finetuned", "rare")
        if rare is None or rare.iloc[0] > 1 - RAISED or not self.rare_is_known:
            return None
        return bool(rare.iloc[-1] - rare.iloc[0] >= RAISED)

    def transplanted(self, how: str, part: str = "", split: str = "evaluation") -> float | None:
        """Accuracy with parts exchanged, after fine-tuning on new people without replay."""
        table = self.rows("transplants")
        if table.empty:
            return None
        parts = table["part"].fillna("")
        own = table[(table["transplant"] == how) & (parts == part) & (table["split"] == split)][
            "value"
        ]
        return float(own.iloc[0]) if len(own) else None

    def damage_is_in_mlps(self) -> bool | None:
        """Whether MLP layers alone do more harm than attention alone."""
        names = (("none", ""), ("all", ""), *(("only", part) for part in PARTS))
        before, after, embeddings, attention, mlp = (self.transplanted(*name) for name in names)
        if before is None or after is None or mlp is None or attention is None:
            return None
        if before - after < FORGOTTEN or (embeddings is not None and embeddings < mlp):
            return None
        return before - mlp >= TWICE * max(before - attention, 0) and before - mlp >= FORGOTTEN / 2

    def movement(self, parts: Sequence[str]) -> float | None:
        """How far some weights moved, the mean over layers."""
        table = self.rows("weights")
        own = table[table["part"].isin(parts)] if len(table) else table
        return float(own["value"].mean()) if len(own) else None

    def mlps_move_further(self) -> bool | None:
        """Whether MLP weights move further than those of attention; None if both as far."""
        mlp, attention = self.movement(MATRICES[4:]), self.movement(MATRICES[:4])
        if mlp is None or attention is None or 1 / FURTHER < mlp / attention < FURTHER:
            return None
        return mlp > attention


def claims(tables: Tables) -> list[Claim]:
    """The paper's statements about fine-tuning, held against the tables by stated rules.

    Args:
        tables: Those of `tables`, as made or read back from CSV.
    """
    every = sorted({int(seed) for table in tables.values() for seed in table["seed"]})
    runs = [_Seed(tables, seed) for seed in every]

    def claim(
        statement: str, paper: str, rule: str, holds: Callable[[_Seed], bool | None],
        measured: Callable[[list[_Seed]], str],
    ) -> Claim:  # fmt: skip
        common = (
            " Agree: in every seed that can tell; disagree: in none; else, or with fewer than 2 of them: "
            "cannot tell."
        )
        outcomes = [holds(run) for run in runs]
        said = (
            f"{len(runs)} seeds: {measured(runs)}{_scale(tables)}"
            if runs
            else "nothing was measured"
        )
        return Claim(statement, paper, said, verdict(outcomes), rule + common)

    known = f" Seeds with less than {KNOWN:g} accuracy on old people at the beginning cannot tell."
    rare = (
        f"A model that starts with less than {RARELY_KNOWN:g} accuracy on the rare people or "
        f"{OTHERS_KNOWN:g} on the others does not know them and cannot tell."
    )
    return [
        claim(
            "Fine-tuning on new people destroys what was known within a few hundred steps",
            "it collapses so at 1,000 to 16,000 new people, learning rate 3e-5 (Fig. 5, N)",
            f"Without replay accuracy on old people is below half of what it was by step {SOON}.{known}",
            _Seed.collapses,
            _measured_collapse,
        ),
        claim(
            "Old knowledge is lost before the new is learned",
            "little that is new has been learned by then (Fig. 5, N)",
            "Without replay, at the first measured step where accuracy on old people is below half of what "
            f"it was, accuracy on new ones is below 0.5. A seed where it never is cannot tell.{known}",
            _Seed.loses_first,
            _measured_order,
        ),
        claim(
            "Replaying old people reduces the forgetting",
            "replay with weights from 1/32 to 2 helps (Fig. 5, O)",
            f"With the heaviest replay the final accuracy on old people is at least {HELP:g} above that "
            f"without, which lost at least {FORGOTTEN:g}.{known}",
            _Seed.replay_helps,
            _measured_replay,
        ),
        claim(
            "Replay helps only in part",
            "no replay weight avoids the forgetting without a cost (Fig. 5, O)",
            f"No replay weight ends with {BOTH:.0%} of the old accuracy kept and {BOTH:g} accuracy on new "
            f"people. Without replay at least {FORGOTTEN:g} has to be lost and {BOTH:g} accuracy on new "
            f"people to be reached.{known}",
            _Seed.replay_is_partial,
            _measured_replay,
        ),
        claim(
            "Attention stays as it was while old knowledge is lost",
            "attention to names and its sharpness stay stable (Fig. P)",
            "On old people, without replay, no layer's attention to names (of the last name token to the "
            "rest of the name, of the position that predicts a value to the name) and no sharpness "
            f"changes by more than {STABLE:g} (of 1) at any of the checkpoints read, mean over heads, "
            f"while at least {FORGOTTEN:g} of accuracy on old people is lost.{known}",
            _Seed.attention_is_stable,
            _measured_attention,
        ),
        claim(
            "Fine-tuning on rare known people does no such harm",
            "fine-tuning on rare people leaves the others known (Fig. 5)",
            "The share of accuracy on the other people that is lost in the end is at most "
            f"{HARMLESS:g} times the share that fine-tuning on new people loses (at least {FORGOTTEN:g}) "
            f"in the same seed and as many steps. {rare}{known}",
            _Seed.rare_is_harmless,
            lambda seeds: (
                f"accuracy on the other people {_ends(seeds, 'evaluation', 'rare')} by rare people, "
                f"{_ends(seeds, 'evaluation', 'new')} by new ones"
            ),
        ),
        claim(
            "Fine-tuning on rare known people makes them known",
            "accuracy on them rises from about 50% to about 70% (Fig. 5)",
            f"Accuracy on rare people is at least {RAISED:g} higher in the end. Seeds where it begins above "
            f"{1 - RAISED:g} cannot tell. {rare}",
            _Seed.rare_rises,
            lambda seeds: f"accuracy on rare people {_ends(seeds, 'finetuned', 'rare')}",
        ),
        claim(
            "The damage is done in MLP layers, not in attention",
            "attention stays stable, so that MLP layers are suspected (section 5); not measured there",
            "After fine-tuning on new people without replay: with its MLP layers in the model before "
            f"(only they fine-tuned) accuracy on old people falls at least {TWICE:g} times as far as with "
            f"its attention in it, and at least by {FORGOTTEN / 2:g}. Seeds that lose less than "
            f"{FORGOTTEN:g} in all, or more by the fine-tuned embeddings alone than by MLP layers, cannot "
            "tell.",
            _Seed.damage_is_in_mlps,
            _measured_transplants,
        ),
        claim(
            "The weights of MLP layers move further than those of attention",
            "not measured",
            "After fine-tuning on new people without replay the norm of the change, a share of the norm "
            "before, mean over W_in and W_out of all layers, against that of W_Q, W_K, W_V and W_O: agree "
            f"if {FURTHER:g} times as large, disagree if as much smaller; seeds in between cannot tell.",
            _Seed.mlps_move_further,
            _measured_movement,
        ),
    ]


def _scale(tables: Tables) -> str:
    """How large the runs on new people are, as text."""
    table = tables.get("scale")
    new = table[table["variant"] == "new"] if table is not None else None
    if new is None or new.empty:
        return ""
    row = new.iloc[0]
    rates = f"{row['learning_rate']:g} after {row['base_learning_rate']:g}"
    return f" ({row['people']:,} new, {row['old_people']:,} old people; learning rate {rates})"


def _values(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _ends(seeds: Sequence[_Seed], split: str, variant: str) -> str:
    """Accuracy at the beginning and in the end, as text."""
    curves = [c for run in seeds if (c := run.accuracy(split, variant)) is not None]
    if not curves:
        return "not measured"
    start, end = (spread(float(c.iloc[place]) for c in curves) for place in (0, -1))
    return f"{start} before, {end} after {int(curves[0].index[-1]):,} steps"


def _measured_collapse(seeds: list[_Seed]) -> str:
    lost = [run.half_lost for run in seeds]
    when = ", ".join("never" if step is None else f"{step:,}" for step in lost)
    return (
        f"accuracy on old people {_ends(seeds, 'evaluation', 'new')}; below half from step {when}"
    )


def _measured_order(seeds: list[_Seed]) -> str:
    said = []
    for step in (40, 400):
        pairs = [(run.accuracy("evaluation"), run.accuracy("finetuned")) for run in seeds]
        at = [
            (float(old[step]), float(new[step]))
            for old, new in pairs
            if old is not None and new is not None and step in old.index and step in new.index
        ]
        if at:
            old_at, new_at = (fmean(values) for values in zip(*at, strict=True))
            said.append(f"at step {step} accuracy {old_at:.2f} on old, {new_at:.2f} on new people")
    halves = [
        float(new[run.half_lost])
        for run in seeds
        if run.half_lost is not None and (new := run.accuracy("finetuned")) is not None
    ]
    said.append(
        f"accuracy on new people when half of the old is lost {spread(halves)}"
        if halves
        else "half of the old is never lost"
    )
    return "; ".join(said)


def _measured_replay(seeds: list[_Seed]) -> str:
    said = [
        f"no replay {_mean_end(seeds, 'evaluation')} and {_mean_end(seeds, 'finetuned')}",
    ]
    ends = [run.replayed() for run in seeds]
    for weight in sorted({weight for of_run in ends for weight in of_run}):
        own = [of_run[weight] for of_run in ends if weight in of_run]
        old, new = (fmean(values) for values in zip(*own, strict=True))
        said.append(f"weight {weight_name(weight)}: {old:.2f} and {new:.2f}")
    return f"final accuracy on old and on new people: {', '.join(said)}"


def _mean_end(seeds: Sequence[_Seed], split: str) -> str:
    ends = [float(c.iloc[-1]) for run in seeds if (c := run.accuracy(split)) is not None]
    return f"{fmean(ends):.2f}" if ends else "not measured"


def _measured_attention(seeds: list[_Seed]) -> str:
    found = [changes for run in seeds if not (changes := run.attention_changes()).empty]
    if not found:
        return "not measured"
    largest = spread(float(changes["change"].max()) for changes in found)
    worst = found[0].sort_values("change").iloc[-1]
    name = str(worst["metric"]).replace("_", " ")
    return (
        f"largest change {largest}; in the first seed that of {name} in layer {int(worst['layer'])}, "
        f"{worst['before']:.2f} before"
    )


def _measured_transplants(seeds: list[_Seed]) -> str:
    said = []
    for how, part, words in (
        ("none", "", "before"),
        ("all", "", "after"),
        ("only", "MLP", "with only MLPs fine-tuned"),
        ("only", "attention", "only attention"),
        ("only", "embeddings", "only embeddings and unembedding"),
        ("all but", "MLP", "with only MLPs put back"),
        ("all but", "attention", "only attention put back"),
    ):
        values = _values(run.transplanted(how, part) for run in seeds)
        if values:
            said.append(f"{words} {fmean(values):.2f}")
    return f"accuracy on old people {', '.join(said)}" if said else "not measured"


def _measured_movement(seeds: list[_Seed]) -> str:
    mlp, attention, embeddings = (
        spread(_values(run.movement(parts) for run in seeds))
        for parts in (MATRICES[4:], MATRICES[:4], ("W_E", "W_U"))
    )
    said = f"MLP {mlp}, attention {attention}, embedding and unembedding {embeddings}"
    tables = [table for run in seeds if not (table := run.rows("keys")).empty]
    if not tables:
        return said
    keys = pd.concat(tables)
    last = keys[keys["step"] == keys["step"].max()]
    turned = last.groupby(["layer", "position"], as_index=False)[["value", "control"]].mean()
    most = turned.sort_values("value").iloc[-1]
    return (
        f"{said}; keys of old people turned most in layer {most['layer']} at the position "
        f"'{most['position']}': 1 - cosine {most['value']:.2f}, between different people "
        f"{most['control']:.2f}"
    )


STUDY = Study(
    name="finetuning",
    doc=__doc__,
    settings=FinetuningSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
