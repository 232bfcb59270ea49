"""Robustness of the three phases.

Are there three phases whatever the learning rate, weight decay, batch size and model size, and without
attention? (Paper, section 3.)

Command: interp batch robustness --out artifacts/studies --workers 2
Duration: 34 runs of up to 1,500 steps, DUR

One setting is changed at a time: learning rate, weight decay, batch size, the model's size, and
recurrence in the place of attention. The learning rate is constant, so that how long a run was meant
to be does not matter, and a run ends once it has left its plateau well behind. Only the recurrent run
goes on to the last step with all checkpoints, since it is to be looked at whole.

A loss that falls from above the baseline to below it always takes some steps from (1 + δ) to (1 - δ)
times the baseline, plateau or not. So a run counts as showing the three phases only if its loss falls
more slowly in between than right before and right after (see `shows_phases`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config
from interp.phases import DELTA, detect_phases
from interp.plots.robustness import family_curves, plateau_ends, recurrent_phases
from interp.run import Run
from interp.studies.rules import Claim, Verdict
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

DEFAULT = "default"
RECURRENT = "recurrent"
"""Names of two variants."""
FAMILIES = ("learning rate", "weight decay", "batch size", "model size", "recurrence")
"""What is varied."""
STOP_BELOW = 0.5
"""The share of the baseline below which a run ends: the plateau is long over."""
MEASUREMENTS = 3
"""A plateau has at least so many measurements."""
WITHIN = 0.9
"""At least this share of them lies within δ of the baseline."""
HARDLY_ANY = 0.1
"""Accuracy stays below this share up to the plateau's end."""
SLOWER = 1.5
"""Before and after the plateau the loss falls at least so many times as fast as on it."""


class RobustnessSettings(StudySettings):
    """Settings of the study; a value that the preset has anyway is not trained twice."""

    learning_rate: tuple[float, ...] = (3.75e-4, 7.5e-4, 3e-3, 6e-3)
    """Learning rates to try beside the preset's."""
    weight_decay: tuple[float, ...] = (0.01, 1.0)
    """Weight decays to try."""
    batch_size: tuple[int, ...] = (16, 64, 128)
    """Biographies per step to try."""
    n_layers: tuple[int, ...] = (1, 4)
    """Numbers of layers to try."""
    d_model: tuple[int, ...] = (64, 256)
    """Widths to try; heads stay as wide as they are, and MLPs as many times wider than the stream."""
    recurrent_seeds: tuple[int, ...] = (0,)
    """Seeds of the recurrent variant; none leaves it out."""
    n_steps: int = Field(default=1500, ge=1)
    """The last step of a run that does not leave its plateau before, and of recurrent runs."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {
            "optimizer.learning_rate",
            "optimizer.weight_decay",
            "training.batch_size",
            "training.stop_below",
            "model.n_layers",
            "model.d_model",
            "model.n_heads",
            "model.d_mlp",
            "model.recurrence",
        }
    )

    @field_validator("learning_rate", "weight_decay", "batch_size", "n_layers", "d_model")
    @classmethod
    def _values_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("values to try", values) if values else values

    @field_validator("recurrent_seeds")
    @classmethod
    def _recurrent_seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return each_once("recurrent_seeds", seeds) if seeds else seeds

    def cell(self, seed: int, **changes: Any) -> Config:
        """The settings of one run: those that all share, then `changes`."""
        shared = {
            "optimizer.schedule": "constant",
            "training.n_steps": self.n_steps,
            "training.stop_below": STOP_BELOW,
            "training.early_checkpoints": (0,),
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": 10,
            "evaluation.splits": ("evaluation",),
        }
        return self.config(seed, **(shared | changes))


@dataclass(frozen=True)
class Variant:
    """One cell of the study: what is changed, and the settings of its run.

    Attributes:
        family: What kind of setting is changed, e.g. "learning rate".
        variant: Its value in words, e.g. "learning rate 0.003".
        config: The run.
    """

    family: str
    variant: str
    config: Config


def variants(settings: RobustnessSettings) -> list[Variant]:
    """All cells, the preset's own values first."""
    found: list[Variant] = []
    for seed in settings.seeds:
        base = settings.cell(seed)
        found.append(Variant(DEFAULT, DEFAULT, base))
        for family, variant, changes in _changes(settings, base):
            config = settings.cell(seed, **changes)
            if config != base:
                found.append(Variant(family, variant, config))
    for seed in settings.recurrent_seeds:
        # Whole, and with the preset's checkpoints: this is the run that people open.
        preset = settings.config(seed).training
        whole = {
            "model.recurrence": "rg_lru",
            "training.stop_below": None,
            "training.early_checkpoints": preset.early_checkpoints,
            "training.checkpoint_every": preset.checkpoint_every,
        }
        found.append(Variant("recurrence", RECURRENT, settings.cell(seed, **whole)))
    return found


def _changes(
    settings: RobustnessSettings, base: Config
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for rate in settings.learning_rate:
        yield "learning rate", f"learning rate {rate:g}", {"optimizer.learning_rate": rate}
    for decay in settings.weight_decay:
        yield "weight decay", f"weight decay {decay:g}", {"optimizer.weight_decay": decay}
    for size in settings.batch_size:
        yield "batch size", f"batch size {size}", {"training.batch_size": size}
    for n in settings.n_layers:
        yield "model size", f"{n} layer{'s' if n > 1 else ''}", {"model.n_layers": n}
    for width in settings.d_model:
        model = base.model
        changes = {
            "model.d_model": width,
            "model.n_heads": max(1, width // model.d_head),
            "model.d_mlp": width * model.d_mlp // model.d_model,
        }
        yield "model size", f"width {width}", changes


def runs(settings: RobustnessSettings) -> Sequence[Planned]:
    """The runs that the settings ask for."""
    return [Planned(cell.config) for cell in variants(settings)]


def tables(settings: RobustnessSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What each run's curve shows, and the curves.

    Args:
        settings: Those that the runs were planned with.
        runs: The finished ones, in any order.

    Returns:
        `runs`: a row for each planned run, NA where it is missing: `family`, `variant`, `seed`,
        `n_individuals`, what is varied (`learning_rate`, `weight_decay`, `batch_size`, `n_layers`,
        `d_model`, `recurrence`), and the columns of `plateau_facts`. `curves`: `variant`, `seed`,
        `step`, `loss` (a share of the baseline) and `accuracy` (a share) on evaluation biographies.
    """
    finished = {_key(run.config): run for run in runs}
    rows, curves = [], []
    for cell in variants(settings):
        config = cell.config
        row = {
            "family": cell.family,
            "variant": cell.variant,
            "seed": config.seed,
            "n_individuals": config.population.n_individuals,
            "learning_rate": config.optimizer.learning_rate,
            "weight_decay": config.optimizer.weight_decay,
            "batch_size": config.training.batch_size,
            "n_layers": config.model.n_layers,
            "d_model": config.model.d_model,
            "recurrence": config.model.recurrence or "none",
        }
        run = finished.get(_key(config))
        if run is not None:
            curve = pd.DataFrame(
                {
                    "loss": run.curve() / run.phase_baseline,
                    "accuracy": run.curve("attribute_accuracy"),
                }
            )
            row |= plateau_facts(curve, config.training.batch_size)
            curve.insert(0, "seed", config.seed)
            curve.insert(0, "variant", cell.variant)
            curves.append(curve.rename_axis("step").reset_index())
        rows.append(row)
    described = [name for name in rows[0] if name not in _FACTS]
    table = pd.DataFrame(rows, columns=[*described, *_FACTS])
    columns = ["variant", "seed", "step", "loss", "accuracy"]
    joined = pd.concat(curves) if curves else pd.DataFrame(columns=columns)
    return {
        "runs": table.round(5).astype(dict.fromkeys(_WHOLE, "Int64")),
        "curves": joined[columns].round(4).reset_index(drop=True),
    }


_WHOLE = ("last_step", "statistics_end", "plateau_end", "plateau_length", "biographies", "measured")
_FACTS = (
    *_WHOLE, "within", "accuracy", "speed_before", "speed_on_plateau", "speed_after", "last_loss",
    "last_accuracy",
)  # fmt: skip
"""What `plateau_facts` finds; the first are whole numbers."""


def _key(config: Config) -> str:
    return repr(sorted(config.identity().items()))


def plateau_facts(curve: pd.DataFrame, batch_size: int, delta: float = DELTA) -> dict[str, Any]:
    """What a curve shows of the three phases.

    Args:
        curve: `loss` (a share of the baseline) and `accuracy` (a share), indexed by step.
        batch_size: Biographies per step.
        delta: The tolerance δ of the phases.

    Returns:
        `last_step`; `statistics_end`, `plateau_end`, `plateau_length` in steps and `biographies` up to
        the plateau's end, None where not reached; of the measurements from the statistics phase's
        end to before the plateau's end their number (`measured`) and the share `within` δ of the
        baseline; the highest `accuracy` up to the plateau's end; how fast the loss falls, in baselines
        per 100 steps, on the plateau (`speed_on_plateau`) and in as many steps as it has before
        (`speed_before`) and after (`speed_after`), or in fewer where the curve has no more; the
        `last_loss`, a share of the baseline, and `last_accuracy`.
    """
    loss = curve["loss"]
    steps = [int(step) for step in curve.index]
    phases = detect_phases(steps, list(loss), 1.0, delta)
    start, end, length = phases.statistics_end, phases.plateau_end, phases.plateau_length
    facts: dict[str, Any] = dict.fromkeys(_FACTS)
    facts |= {
        "last_step": steps[-1],
        "statistics_end": start,
        "plateau_end": end,
        "plateau_length": length,
        "last_loss": float(loss.iloc[-1]),
        "last_accuracy": float(curve["accuracy"].iloc[-1]),
    }
    if start is None or end is None or length is None:
        return facts
    on_plateau = loss[(loss.index >= start) & (loss.index < end)]
    return facts | {
        "biographies": end * batch_size,
        "measured": len(on_plateau),
        "within": float(((on_plateau - 1).abs() <= delta).mean()) if len(on_plateau) else None,
        "accuracy": float(curve["accuracy"][curve.index <= end].max()),
        "speed_before": _speed(loss, start - length, start),
        "speed_on_plateau": _speed(loss, start, end),
        "speed_after": _speed(loss, end, end + length),
    }


def _speed(loss: pd.Series, first: int, last: int) -> float | None:
    """Baselines per 100 steps by which the loss falls between two steps; None without any."""
    inside = loss[(loss.index >= first) & (loss.index <= last)]
    if len(inside) < 2:
        return None
    return float((inside.iloc[0] - inside.iloc[-1]) / (inside.index[-1] - inside.index[0]) * 100)


def shows_phases(row: Mapping[Any, Any]) -> bool | None:
    """Whether a run shows the three phases; None where it cannot tell.

    It cannot if it is missing, or ended before the statistics phase or the plateau did, or as soon as
    the plateau did. Else see `RULE`.

    Args:
        row: A row of `runs`.
    """
    if any(pd.isna(row[name]) for name in ("statistics_end", "plateau_end", "last_step")):
        return None
    if row["plateau_end"] >= row["last_step"]:
        return None
    if row["measured"] < MEASUREMENTS or pd.isna(row["speed_before"]):
        return False
    slow = SLOWER * max(row["speed_on_plateau"], 0)
    return bool(
        row["within"] >= WITHIN
        and row["accuracy"] < HARDLY_ANY
        and row["speed_before"] > 0
        and row["speed_after"] > 0
        and row["speed_before"] >= slow
        and row["speed_after"] >= slow
    )


RULE = (
    f"A run shows the three phases if between the first step with a loss of at most {1 + DELTA:g} baselines "
    f"and the one from which it stays below {1 - DELTA:g} there are at least {MEASUREMENTS} measurements, "
    f"{WITHIN:.0%} of them within {DELTA:.0%} of the baseline, with an accuracy below {HARDLY_ANY:g} up to "
    f"the end, and the loss falls at least {SLOWER:g} times as fast as there in as many steps before and "
    "after. A run that does not get that far cannot tell."
)
"""The rule of one run, in words."""


def figures(tables: Tables) -> dict[str, go.Figure]:
    """Curves for each family, the recurrent run with its phases, and the plateau's ends."""
    empty = pd.DataFrame()
    table, curves = tables.get("runs", empty), tables.get("curves", empty)
    if table.empty or curves.empty:
        return {}
    table = table[table["last_step"].notna()]
    drawn = {}
    ends = table[table["variant"] != RECURRENT]
    if len(ends):
        drawn["robustness-ends"] = plateau_ends(ends)
    batches = table[table["family"].isin([DEFAULT, "batch size"])]
    if "batch size" in set(batches["family"]):
        drawn["robustness-biographies"] = plateau_ends(batches, "biographies")
    for family in FAMILIES[:-1]:
        names = table[table["family"] == family]["variant"].unique()
        if len(names):
            shown = curves[curves["variant"].isin([DEFAULT, *names])]
            drawn[f"robustness-{family.replace(' ', '-')}"] = family_curves(family, shown)
    recurrent = table[table["variant"] == RECURRENT]
    if len(recurrent):
        drawn["robustness-recurrence"] = recurrent_phases(
            recurrent, curves[curves["variant"].isin([DEFAULT, RECURRENT])]
        )
    return drawn


_PAPER = {
    "learning rate": "for learning rates of 1e-4 to 1.6e-3",
    "weight decay": "for weight decays of 0.01 to 1",
    "batch size": "for batches of 32 to 512 sequences",
    "model size": "for models of 44M, 163M and 400M parameters",
    "recurrence": "also in a model with a gated linear recurrence in place of attention",
}


def claims(tables: Tables) -> list[Claim]:
    """One for each family: the three phases are there at all its values."""
    table = tables.get("runs", pd.DataFrame(columns=["family", "variant", "seed", *_FACTS]))
    # A row each, so that None is not made a number.
    shown = [shows_phases(row) for row in table.to_dict("records")]
    return [
        _claim(family, table, pd.Series(shown, table.index, dtype=object)) for family in FAMILIES
    ]


def _claim(family: str, table: pd.DataFrame, shown: pd.Series) -> Claim:
    own = table[table["family"] == family]
    enough = 1 if family == "recurrence" else 2
    of_variants = {
        str(name): [shown[i] for i in rows.index]
        for name, rows in own.groupby("variant", sort=False)
    }
    claim = {
        "recurrence": "The three phases are there with a recurrence in place of attention, too"
    }.get(family, f"The three phases are there whatever the {family}")
    seeds = "its runs (one is enough: it is costly)" if enough == 1 else "all seeds, 2 at least"
    return Claim(
        claim=claim,
        paper=f"robust, {_PAPER[family]} (section 3)",
        measured=_measured(table, family, of_variants),
        verdict=_of_family(of_variants, enough),
        rule=f"{RULE} Agree: every value of the {family} shows them in {seeds}. Disagree: some value "
        "shows them in none of as many. Cannot tell: anything else, such as a run that is missing.",
    )


def _of_family(of_variants: Mapping[str, Sequence[bool | None]], enough: int) -> Verdict:
    whole = [shown for shown in of_variants.values() if len(shown) >= enough]
    if any(all(one is False for one in shown) for shown in whole):
        return "disagree"
    complete = bool(of_variants) and len(whole) == len(of_variants)
    return "agree" if complete and all(all(shown) for shown in whole) else "cannot tell"


def _measured(
    table: pd.DataFrame, family: str, of_variants: Mapping[str, Sequence[bool | None]]
) -> str:
    if not of_variants:
        return "not measured"
    parts = []
    for name, shown in of_variants.items():
        rows = table[table["variant"] == name]
        parts.append(
            f"{name}: {_plateau(rows, family)}, shown by {shown.count(True)} of {len(shown)}"
        )
    default = table[table["variant"] == DEFAULT]
    if len(default):
        parts.append(f"for comparison, the default: {_plateau(default, family)}")
    people = int(table["n_individuals"].iloc[0])
    return f"{'; '.join(parts)} (means of seeds, N = {people:,})"


def _plateau(rows: pd.DataFrame, family: str) -> str:
    """Where the plateau lies, as a mean of seeds."""
    done = rows[rows["last_step"].notna()]
    reached = done[done["plateau_end"].notna() & done["statistics_end"].notna()]
    if done.empty:
        return "not trained"
    if reached.empty:
        return f"plateau's end not reached by step {int(done['last_step'].max()):,}"
    start, end = reached["statistics_end"].mean(), reached["plateau_end"].mean()
    words = f"plateau from step {start:,.0f} to {end:,.0f}"
    if family == "batch size":
        words += f" ({reached['biographies'].mean():,.0f} biographies)"
    if len(reached) < len(rows):
        words += f" in {len(reached)} of {len(rows)} runs"
    return words


STUDY = Study(
    name="robustness",
    doc=__doc__,
    settings=RobustnessSettings,
    runs=runs,
    tables=tables,
    figures=figures,
    claims=claims,
)
