"""Facts as equations.

Are facts learned all or nothing; how many bits does a parameter hold; what do contradictions do; does the
order matter; and can models that learned different facts be added up?

Command: interp batch equations --out artifacts/studies --workers 2
Duration: 66 runs (42 of half a minute to 3 minutes each on one thread; 24 of half a minute to 12)

Every fact is an equation, the weights are the unknowns. Five parts, each of which can be left out
(`parts`): the residuals of single facts while a plain run leaves its plateau, and the interference of
groups of them; how many bits small models hold of more and more people; people with two values of an
attribute, mixed or one after the other; two subsystems solved in either order, or both at once; and two
runs that learned different people from one base, averaged, added and switched. Small models have lists of
16 names and values, batches of 256 and up to 8,000 steps: after many exposures of many people they are longer
than 2 minutes each on one thread.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, ClassVar, Literal, get_args

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator, model_validator

from interp.config import Config, FormConfig, StageConfig, stages_in_order
from interp.config.stages import Order
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.plots import equations_order, equations_study
from interp.run import Run, finetuned
from interp.studies import equations_measured as measured
from interp.studies.collect import collect, complete
from interp.studies.equations_claims import held_against
from interp.studies.equations_merged import ADAPTER, BASE, BOTH, HALVES, line_of, merged
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Part = Literal["residuals", "capacity", "contradiction", "order", "merge"]
ORDERS: tuple[Order, ...] = get_args(Order)
OLD = (0.0, 0.5)
"""The people that the base of merged runs is trained on, as shares."""
SHARES = dict(zip((*HALVES, BOTH), ((0.5, 0.75), (0.75, 1.0), (0.5, 1.0)), strict=True))
"""The people that fine-tuned runs learn."""
_LISTS = (
    "first_names", "middle_names", "last_names", "cities", "universities", "majors", "companies",
)  # fmt: skip
COLUMNS = {
    "residuals": ("seed", "step", "attribute", *measured.RESIDUALS),
    "interference": ("seed", "phase", "step", *measured.INTERFERENCE),
    "capacity": ("seed", "width", "exposures", "n_individuals", *measured.CAPACITY),
    "contradiction": ("seed", "condition", "step", "accuracy"),
    "contradicted": ("seed", "condition", "step", "p_a", "p_b"),
    "groups": ("seed", "condition", "group", "accuracy", "loss"),
    "order": ("seed", "order", "step", "stage", "one", "two", "one_loss", "two_loss"),
    "merge": ("seed", "model", "old", *HALVES, "new"),
    "line": ("seed", "pair", "split", "alpha", "attribute_loss", "attribute_accuracy"),
}


class EquationsSettings(StudySettings):
    """Settings of the study of facts as equations."""

    parts: tuple[Part, ...] = get_args(Part)
    """What is done."""
    n_steps: int = Field(default=1500, ge=3)
    """Steps of the plain run, of those with contradictions, and of the base of merged ones."""
    every: int = Field(default=25, ge=1)
    """Steps between measurements of the plain run and of those with contradictions."""
    checkpoints: tuple[int, ...] = (
        0, 50, 100, 150, 200, 225, 250, 275, 300, 325, 350, 375, 400, 450, 500, 600, 700, 850, 1000,
    )  # fmt: skip
    """Checkpoints of the plain run, beside its last; dense where the plateau of `tiny` ends (step 300)."""
    interference_people: int = Field(default=48, ge=4)
    """People whose facts' gradients are compared."""

    widths: tuple[int, ...] = (32,)
    """`d_model` of small models of two layers; heads are 8 wide, an MLP has four neurons for each."""
    people: tuple[int, ...] = (256, 512, 1024, 2048)
    """Numbers of people."""
    capacity_list: int = Field(default=16, ge=2)
    """How many first names, middle names, last names, cities, universities, majors and companies there are
    then, with 10 years: with as many as in `tiny`, embeddings would be nearly all of such a model."""
    exposures: tuple[int, ...] = (100, 1000)
    """How often each is met."""
    most_examples: int = Field(default=4096 * 1000, ge=1)
    """Exposures x people of the largest runs; what would be larger is left out."""
    capacity_batch: int = Field(default=256, ge=1)
    """Biographies a step; steps = exposures x people / batch."""
    capacity_rate: float = Field(default=1e-2, gt=0)
    """Learning rate of small models, cosine to 0. Of 512 people of seed 7, width 32 held 91% of the facts
    after 1,000 exposures with it, and 19% with 3e-3; width 16 held 7% and 6%."""
    capacity_decay: float = Field(default=0.01, ge=0)
    """Weight decay of small models: a tenth of that of `tiny`, since runs of 8,000 steps shrink much."""
    n_measured: int = Field(default=2048, ge=1)
    """Of at most how many people bits are measured; those of all follow."""

    attribute: str = "company"
    """The attribute that is contradicted."""
    share_of_people: float = Field(default=0.5, gt=0, le=1)
    """The share of the people who have a second value of it."""
    shares: tuple[float, ...] = (0.5, 0.75, 0.9)
    """In which shares of their biographies they have their own, mixed; and one after the other, always."""

    orders: tuple[Order, ...] = ORDERS
    """In which orders two subsystems are solved."""
    subsystems: Literal["people", "attributes"] = "people"
    """The halves of the people, or of the attributes."""
    order_steps: int = Field(default=3000, ge=3)
    """Steps of each order, a third for each stage."""

    tuning_steps: int = Field(default=400, ge=1)
    """Steps of fine-tuning on a quarter of the people; twice as many on both."""
    tuning_rate: float = Field(default=3e-4, gt=0)
    """Constant learning rate of fine-tuning."""
    rank: int | None = Field(default=16, ge=1)
    """Rank of adapters that are added and switched; None: there are none."""
    adapter_rate: float = Field(default=3e-3, gt=0)
    """Constant learning rate of adapters."""
    scales: tuple[float, ...] = (0.5, 1.0)
    """What the sum of two task vectors is multiplied by."""
    n_alphas: int = Field(default=7, ge=3)
    """Models along a line."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {
            "population", "data", "model.n_layers", "model.d_model", "model.n_heads", "model.d_mlp",
            "optimizer", "training.n_steps", "training.batch_size", "training.early_checkpoints",
            "training.checkpoint_every", "finetuning", "adapter",
        }
    )  # fmt: skip

    @field_validator("parts", "widths", "people", "exposures", "shares", "orders", "scales")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    @model_validator(mode="after")
    def _can_be_trained(self) -> "EquationsSettings":
        if min(*self.people, *self.exposures) < 1:
            raise ConfigError(
                f"people={list(self.people)}, exposures={list(self.exposures)}: at least 1 each."
            )
        if min(self.people) * min(self.exposures) > self.most_examples:
            raise ConfigError(
                f"most_examples={self.most_examples:,}: the smallest run has more, "
                f"{min(self.people) * min(self.exposures):,}; give as many."
            )
        if odd := [width for width in self.widths if width < 8 or width % 8]:
            raise ConfigError(f"widths={odd}: heads are 8 wide; give multiples of 8.")
        return self

    def plain(self, seed: int) -> Config:
        """The plain run, which is also the control without contradictions."""
        return self.config(
            seed,
            **{
                "training.n_steps": self.n_steps,
                "training.early_checkpoints": self.checkpoints,
                "training.checkpoint_every": self.n_steps,
                "evaluation.every": self.every,
                "evaluation.splits": ("evaluation",),
            },
        )

    def small(self, seed: int, width: int, exposures: int, n_individuals: int) -> Config:
        """A small model of some people, measured at its end only."""
        n_steps = max(1, round(exposures * n_individuals / self.capacity_batch))
        lists = {f"population.{name}": self.capacity_list for name in _LISTS}
        return self.config(
            seed,
            **{
                "population.n_individuals": n_individuals, "population.n_held_out": 0, **lists,
                "population.years": 10,
                "model.n_layers": 2, "model.d_model": width, "model.n_heads": width // 8,
                "model.d_mlp": 4 * width, "optimizer.learning_rate": self.capacity_rate,
                "optimizer.weight_decay": self.capacity_decay, "training.n_steps": n_steps,
                "training.batch_size": self.capacity_batch, **_ends_only(n_steps),
                "evaluation.log_every": max(1, n_steps // 20),
            },
        )  # fmt: skip

    def contradictory(self, seed: int, share: float | None) -> Config:
        """A run with two values, mixed or (None) one after the other."""
        told: dict[str, Any] = {
            "attribute": self.attribute,
            "share_of_people": self.share_of_people,
        }
        if share is None:
            told |= {"order": "A then B", "until": self.n_steps // 2}
        else:
            told |= {"share_of_biographies": share}
        checkpoints = {
            "training.early_checkpoints": (0, self.n_steps // 2),
            "training.checkpoint_every": max(1, self.n_steps // 8),
        }
        return self.plain(seed).with_settings(**checkpoints, **{"data.contradictions": told})

    def ordered(self, seed: int, order: Order) -> Config:
        """Two subsystems solved in some order."""
        n, forms = self.order_steps, self.halves(seed)
        return self.config(
            seed,
            **{
                "training.n_steps": n,
                "training.early_checkpoints": (0, n // 3, 2 * n // 3),
                "training.checkpoint_every": max(1, n // 12),
                "evaluation.every": max(1, n // 12),
                "evaluation.splits": ("evaluation",),
                "data.stages": stages_in_order(*forms, order, n_steps=n),
            },
        )

    def halves(self, seed: int) -> tuple[FormConfig, FormConfig]:
        """The two subsystems."""
        if self.subsystems == "people":
            one, two = (FormConfig(form="biography", people=half) for half in ((0, 0.5), (0.5, 1)))
            return one, two
        names = measured.attributes_of(self.config(seed))
        half = len(names) // 2
        one, two = (
            FormConfig(form="biography", attributes=n) for n in (names[:half], names[half:])
        )
        return one, two

    def base(self, seed: int) -> Config:
        """The base of merged runs, trained on half of the people."""
        return self.config(
            seed,
            **{
                "training.n_steps": self.n_steps,
                **_ends_only(self.n_steps),
                "data.stages": (StageConfig(forms=(FormConfig(form="biography", people=OLD),)),),
            },
        )

    def tuned(self, seed: int, people: str, rank: int | None = None) -> Planned:
        """A run that goes on from the base with people it has never met."""
        base = self.base(seed)
        n_steps = self.tuning_steps * (2 if people == BOTH else 1)
        stage: dict[str, Any] = {"forms": (FormConfig(form="biography", people=SHARES[people]),)}
        settings: dict[str, Any] = {
            "finetuning.people": "same", "training.n_steps": n_steps, **_ends_only(n_steps),
            "optimizer.learning_rate": self.tuning_rate if rank is None else self.adapter_rate,
        }  # fmt: skip
        if rank is not None:
            settings["adapter.rank"] = rank
            stage["weights"] = "adapter"
        settings["data.stages"] = (StageConfig(**stage),)
        return Planned(finetuned(base, **settings), Planned(base))


def _ends_only(n_steps: int) -> dict[str, Any]:
    """Checkpoints and measurements at the first and the last step alone."""
    return {
        "training.early_checkpoints": (0,), "training.checkpoint_every": n_steps,
        "evaluation.every": n_steps, "evaluation.splits": ("evaluation",),
    }  # fmt: skip


def cells(settings: EquationsSettings) -> Iterator[tuple[Part, dict[str, Any], Planned]]:
    """Every part's runs: what tells each apart, and its settings. A run may be in two parts."""
    for seed in settings.seeds:
        of = {"seed": seed}
        plain = Planned(settings.plain(seed))
        if "residuals" in settings.parts:
            yield "residuals", of, plain
        if "capacity" in settings.parts:
            for width in settings.widths:
                for exposures, n in product(settings.exposures, settings.people):
                    if exposures * n <= settings.most_examples:
                        apart = {"width": width, "exposures": exposures, "n_individuals": n}
                        yield "capacity", of | apart, Planned(settings.small(seed, **apart))
        if "contradiction" in settings.parts:
            yield "contradiction", of | {"condition": measured.CONTROL}, plain
            for share in (*settings.shares, None):
                name = measured.A_THEN_B if share is None else measured.mixed(share)
                config = settings.contradictory(seed, share)
                yield "contradiction", of | {"condition": name}, Planned(config)
        if "order" in settings.parts:
            for order in settings.orders:
                yield "order", of | {"order": order}, Planned(settings.ordered(seed, order))
        if "merge" in settings.parts:
            yield "merge", of | {"model": BASE}, Planned(settings.base(seed))
            for people in (*HALVES, BOTH):
                yield "merge", of | {"model": people}, settings.tuned(seed, people)
            for people in HALVES if settings.rank is not None else ():
                plan = settings.tuned(seed, people, settings.rank)
                yield "merge", of | {"model": f"{ADAPTER}, {people}"}, plan


def planned(settings: EquationsSettings) -> list[Planned]:
    """The runs that settings ask for, each once."""
    found = {address_of(plan.config): plan for _, _, plan in cells(settings)}
    return list(found.values())


def described(settings: EquationsSettings, run: Run) -> list[tuple[Part, dict[str, Any]]]:
    """The parts of the study that a run belongs to, and what tells it apart there."""
    address = address_of(run.config)
    return [(p, apart) for p, apart, plan in cells(settings) if address_of(plan.config) == address]


def tables(settings: EquationsSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed`. Facts are asked for in wordings never seen with a person; accuracy is
        the share of values right, a loss is nats a value.

        "residuals": of the plain run by `step` and `attribute` ("all" too), of its facts' losses, as shares
        of the baseline: the `mean`, quantiles (`q10`, `q25`, `q50`, `q75`, `q90`), the share from 0.2 to 0.8
        (`middle`) and Sarle's coefficient (`bimodality`; 0.556 for uniform, 1 for two points); and shares of
        facts with a loss below 0.1 nats (`known`), at 90% of the baseline or above (`unknown`), and
        `between`.
        "interference": of the plain run, at a checkpoint of each `phase`, the columns of
        `interp.equations.interference` for all weights, by attribute and by people.
        "capacity": of small models at the end, by `width`, `exposures` and `n_individuals`: `n_steps`,
        `parameters` and `non_embedding` ones, `loss` and `baseline` (nats a fact), `accuracy`, `bits`, and
        `bits_per_parameter`, `bits_per_non_embedding`.
        "contradiction": by `condition` ("control", "mixed 0.5", ..., "A then B") over `step`s, `accuracy` on
        attributes that nobody is contradicted of.
        "contradicted": over checkpoints the mean probability of both values, `p_a` and `p_b`.
        "groups": at the end, by `group` of facts, `accuracy` (right is A) and `loss`.
        "order": by `order` over checkpoints: the `stage` that had been trained until then, accuracy and loss
        of both subsystems (`one`, `two`, `one_loss`, `two_loss`).
        "merge": by `model`, accuracy on `old` people, on both halves of new ones ("first half", "second
        half"), and their mean, `new`.
        "line": along the line between two models (`pair`), by `split` ("old", "new"), `alpha`: loss and
        accuracy.
    """
    of_address: dict[str, list[tuple[Part, dict[str, Any]]]] = {}
    for part, apart, plan in cells(settings):
        of_address.setdefault(address_of(plan.config), []).append((part, apart))
    belongs = [
        (run, part, apart) for run in runs for part, apart in of_address[address_of(run.config)]
    ]
    by_seed: dict[int, dict[str, Run]] = {}
    for run, part, apart in belongs:
        if part == "merge":
            by_seed.setdefault(apart["seed"], {})[apart["model"]] = run
    measures: dict[Part, Callable[[Run], dict[str, pd.DataFrame]]] = {
        "residuals": partial(measured.plain, n_individuals=settings.interference_people),
        "capacity": partial(measured.capacity, n_measured=settings.n_measured),
        "contradiction": partial(measured.contradiction, attribute=settings.attribute),
        "order": partial(measured.order, forms=settings.halves(0)),
    }

    def of_run(one: tuple[Run, Part, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        run, part, apart = one
        return apart, measures[part](run)

    found = collect([one for one in belongs if one[1] != "merge"], of_run, COLUMNS)

    def of_seed(one: tuple[int, dict[str, Run]]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        seed, models = one
        people = {"old": OLD, **SHARES}
        return {"seed": seed}, {
            "merge": merged(models, people, settings.scales),
            "line": line_of(models, people, settings.n_alphas),
        }

    together = {name: COLUMNS[name] for name in ("merge", "line")}
    found |= collect(by_seed.items(), of_seed, together)
    return {name: table.round(4) for name, table in found.items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "equations-residuals": ("residuals", equations_study.residual_shares),
        "equations-quantiles": ("residuals", equations_study.residual_quantiles),
        "equations-interference": ("interference", equations_study.interference_maps),
        "equations-groups": ("interference", equations_study.interference_groups),
        "equations-capacity": ("capacity", equations_study.capacity),
        "equations-contradicted": ("contradicted", equations_order.contradicted),
        "equations-others": ("contradiction", equations_order.others),
        "equations-order": ("order", equations_order.order),
        "equations-merge": ("merge", equations_order.merge),
        "equations-line": ("line", equations_order.line),
    }
    there = complete(tables, COLUMNS)
    return {anchor: draw(there[n]) for anchor, (n, draw) in drawn.items() if len(there[n])}


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of facts as equations, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("equations", __doc__, EquationsSettings, planned, tables, figures, claims)
