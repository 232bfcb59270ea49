"""Knowledge or memory: one fact in many forms.

Can a fact be asked for in a form in which its person was never trained, and of what does that depend?
(Allen-Zhu & Li 2023, Physics of Language Models 3.1, arXiv:2309.14316, and 3.2, arXiv:2309.14402)

Command: interp batch forms --out artifacts/studies --workers 2
Duration: 72 runs (24 of 1,500 steps, 80 s on one thread; 48 of 400) and 24 that these start from

People are met in biographies: in k wordings of each attribute, with sentences in a fixed order or in a
random one. Of half of the people a model is also asked questions: from the start, mixed with biographies;
or afterwards, when all weights are fine-tuned on the answers, or an adapter is. Then everybody is asked
in every form, and what counts is the other half, of whom no question was ever seen. Inside, the same is
looked at three ways: does the memory at a name carry the answer to a question as it does in a biography,
do the same neurons fire, do the same heads look at the name?
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config
from interp.errors import ConfigError
from interp.plots import form_study as plots
from interp.run import Run, finetuned
from interp.studies.collect import collect, complete
from interp.studies.forms_claims import held_against
from interp.studies.forms_measured import FORMS_ASKED, accuracy, inside, known_before
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Order = Literal["fixed", "shuffled"]
ORDERS: tuple[Order, ...] = ("fixed", "shuffled")
Questions = Literal["mixed", "all weights", "adapter"]
_APART = ("seed", "people", "steps", "wordings", "order", "questions")
COLUMNS = {
    "accuracy": (*_APART, "group", "form", "attribute", "accuracy", "loss"),
    "inside": (*_APART, "form", "measure", "layer", "value", "control"),
}
_OTHER_FORMS = ("question", "inverse", "part", "reordered_name")


class FormsSettings(StudySettings):
    """Settings of the study of forms."""

    biographies: tuple[tuple[int, Order], ...] = tuple(
        (wordings, order) for wordings in (1, 2, 5, 20) for order in ORDERS
    )
    """In how many wordings of each attribute a person is met, and in which order sentences come."""
    questions: tuple[Questions, ...] = ("mixed", "all weights", "adapter")
    """When questions are seen, and which weights learn them."""
    asked: float = Field(default=0.5, gt=0, lt=1)
    """The share of the people of whom questions are asked in training."""
    n_steps: int = Field(default=400, ge=1)
    """Steps of fine-tuning on questions."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """The learning rate of fine-tuning all weights."""
    adapter_learning_rate: float = Field(default=3e-3, gt=0)
    """The learning rate of fine-tuning an adapter."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The schedule of both; "cosine" falls from the rate to 0."""
    adapter_rank: int = Field(default=8, ge=1)
    """The rank of the adapter."""

    varies: ClassVar[frozenset[str]] = frozenset({"data", "finetuning", "adapter"})

    @field_validator("biographies", "questions")
    @classmethod
    def _once(cls, values: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        return each_once(info.field_name, values)

    def trained(self, seed: int, wordings: int, order: Order, *, mixed: bool) -> Config:
        """A run on biographies, with questions about some of the people or without."""
        steps = self.config(seed).training.n_steps
        forms = [{"form": "biography"}, self._question(None)]
        return self.config(
            seed,
            **{
                "data.vocabulary": _OTHER_FORMS,
                "data.wordings": wordings,
                "data.order": None if order == "shuffled" else order,
                "data.stages": ({"start": 0, "forms": forms},) if mixed else None,
                "model.n_ctx": 128,
                "training.early_checkpoints": (0,),
                "training.checkpoint_every": max(1, steps // 3),
                "evaluation.every": max(1, steps // 30),
            },
        )

    def tuned(self, base: Config, *, adapter: bool) -> Planned:
        """A run that goes on from biographies with questions about some of the people."""
        stage = {"start": 0, "forms": [self._question("answers")]}
        settings: dict[str, Any] = {
            "finetuning.people": "same",
            "optimizer.learning_rate": self.learning_rate,
            "optimizer.schedule": self.schedule,
            "training.n_steps": self.n_steps,
            "training.checkpoint_every": self.n_steps,
            "evaluation.every": max(1, self.n_steps // 10),
            "evaluation.splits": ("evaluation",),
        }
        if adapter:
            stage["weights"] = "adapter"
            settings["adapter.rank"] = self.adapter_rank
            settings["optimizer.learning_rate"] = self.adapter_learning_rate
        return Planned(finetuned(base, **settings, **{"data.stages": (stage,)}), Planned(base))

    def _question(self, loss: str | None) -> dict[str, Any]:
        return {"form": "question", "people": (0, self.asked), "loss": loss}


def planned(settings: FormsSettings) -> list[Planned]:
    """The runs that settings ask for.

    Raises:
        ConfigError: the model has no attention to be read.
    """
    if (recurrence := settings.config(settings.seeds[0]).model.recurrence) is not None:
        raise ConfigError(
            f"forms: model.recurrence={recurrence!r} has no attention, which this study reads; leave it out."
        )
    runs = []
    for seed in settings.seeds:
        for wordings, order in settings.biographies:
            for questions in settings.questions:
                mixed = questions == "mixed"
                config = settings.trained(seed, wordings, order, mixed=mixed)
                runs.append(
                    Planned(config)
                    if mixed
                    else settings.tuned(config, adapter=questions == "adapter")
                )
    return runs


def described(run: Run) -> dict[str, Any]:
    """What tells a run of this study apart."""
    config, base = run.config, run.base
    questions = "mixed" if base is None else "adapter" if config.adapter.on else "all weights"
    return {
        "seed": config.seed,
        "people": config.population.n_individuals,
        "steps": (config if base is None else base.config).training.n_steps,
        "wordings": config.data.wordings or len(run.population.lexicon.templates["major"]),
        "order": config.data.order or "shuffled",
        "questions": questions,
    }


def tables(settings: FormsSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured at their last checkpoint.

    Returns:
        Tables that begin with `seed`, `people` (N), `steps` (on biographies), `wordings` (k), `order`
        and `questions` ("mixed", "all weights", "adapter"):

        "accuracy": of each `group` ("asked": questions about them were trained; "others") in each
        `form` (`forms_measured.FORMS_ASKED`; "before": wordings seen, before fine-tuning), by
        `attribute` ("all": their mean): `accuracy` (share) and `loss` (nats, summed over the tokens of
        an answer).
        "inside": of runs with questions mixed in, of the others, in each `form` ("biography",
        "question"): `measure`, `layer`, `value`, `control` (see `forms_measured.inside`).
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        share = next(
            form.people
            for stage in run.config.data.stages or ()
            for form in stage.forms
            if form.form == "question"
        )
        assert share is not None
        model = run.model()
        n_asked = run.corpus.people_of(share)[1]
        found = {"accuracy": accuracy(model, run.corpus, n_asked)}
        if run.base is None:
            found["inside"] = inside(model, run.corpus, n_asked)
        else:
            before = known_before(run.base.model(), run.corpus, n_asked)
            found["accuracy"] = pd.concat([found["accuracy"], before], ignore_index=True)
        return described(run), found

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    drawn: dict[str, tuple[str, Callable[[pd.DataFrame], go.Figure]]] = {
        "forms-accuracy": ("accuracy", plots.accuracy_by_form),
        "forms-contrast": ("accuracy", plots.questions_of_others),
        "forms-inside": ("inside", plots.inside),
    }
    there = complete(tables, COLUMNS)
    return {anchor: draw(there[n]) for anchor, (n, draw) in drawn.items() if len(there[n])}


def claims(tables: Tables) -> list[Claim]:
    """Statements about knowledge in other forms, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("forms", __doc__, FormsSettings, planned, tables, figures, claims)

__all__ = ["FORMS_ASKED", "STUDY", "FormsSettings"]
