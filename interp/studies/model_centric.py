"""Forms made for the model.

Are facts learned in fewer exposures as triples or as bare lists than in prose, and are they known in prose
then, if the person was never met in it?

Command: interp batch model_centric --out artifacts/studies --workers 2
Duration: 9 runs of `tiny`, 1 to 2 minutes each on one thread, then half a minute of asking each

Half of the people are met in biographies only. The other half is met in one form only: in biographies too
(the control), in triples ("NAME birth place VALUE."), or in mnemonic phrases (the name, then the values in
random order). A sequence of any form tells all of a person's facts once, so that exposures are the same;
tokens are not.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.asking import accuracy_by_form, answers
from interp.config import Config
from interp.plots import model_centric as plots
from interp.run import Run
from interp.studies.collect import collect, complete
from interp.studies.model_centric_claims import PROSE, held_against
from interp.studies.rules import Claim
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

Told = Literal["biography", "triple", "mnemonic"]
PEOPLE = {"in prose": (0.0, 0.5), "in the form": (0.5, 1.0)}
"""Who is met how, as shares of the people."""
COLUMNS = {
    "curves": ("seed", "form", "step", "exposures", "tokens", "asked_in", "accuracy"),
    "carried": ("seed", "form", "people", "asked_in", "attribute", "accuracy", "loss"),
}


class ModelCentricSettings(StudySettings):
    """Settings of the study of forms made for the model."""

    forms: tuple[Told, ...] = ("biography", "triple", "mnemonic")
    """The form in which half of the people are met."""
    every: int = Field(default=75, ge=1)
    """Steps between checkpoints."""
    n_asked: int = Field(default=128, ge=1)
    """Of how many people of a half, at most, facts are asked at a checkpoint."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"data", "training.early_checkpoints", "training.checkpoint_every"}
    )

    @field_validator("forms")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return each_once("forms", values)

    def of(self, seed: int, form: Told) -> Config:
        """The run in which half of the people are met in a form."""
        told: list[dict[str, Any]] = [{"form": PROSE}]
        if form != PROSE:
            pairs = zip((PROSE, form), PEOPLE.values(), strict=True)
            told = [{"form": what, "people": people} for what, people in pairs]
        return self.config(
            seed,
            **{
                "data.vocabulary": ("triple", "mnemonic"), "data.stages": ({"start": 0, "forms": told},),
                "training.early_checkpoints": (0,), "training.checkpoint_every": self.every,
                "evaluation.splits": ("evaluation",),
            },
        )  # fmt: skip


def planned(settings: ModelCentricSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [Planned(settings.of(seed, form)) for seed in settings.seeds for form in settings.forms]


def form_of(run: Run) -> str:
    """The form in which the second half of a run's people is met."""
    (stage,) = run.config.data.stages or ()
    return stage.forms[-1].form


def tables(settings: ModelCentricSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs measured.

    Returns:
        Tables that begin with `seed` and `form`, that of the second half of the people:

        "curves": of the second half over checkpoints, accuracy (share of facts) when asked in their own form
        and in "biography" (in wordings never seen with them; other forms have one wording); with the mean
        number of `exposures` a person has had until then, and of `tokens` in these.
        "carried": at the end, of both halves (`people`: "in prose", "in the form"), asked in the form and in
        "biography", by `attribute` and for "all": accuracy and loss (nats an answer).
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        apart = {"seed": run.config.seed, "form": form_of(run)}
        return apart, {"curves": _curves(run, settings.n_asked), "carried": _carried(run)}

    return {name: table.round(4) for name, table in collect(runs, of_run, COLUMNS).items()}


def _halves(run: Run) -> dict[str, slice]:
    found = {name: run.corpus.people_of(share) for name, share in PEOPLE.items()}
    return {name: slice(first, first + n) for name, (first, n) in found.items()}


def _curves(run: Run, n_asked: int) -> pd.DataFrame:
    half = _halves(run)["in the form"]
    form = form_of(run)
    asked = list(dict.fromkeys([form, PROSE]))
    found = answers(
        run, forms=asked, individuals=slice(half.start, min(half.stop, half.start + n_asked))
    )
    table = accuracy_by_form(found).query("attribute == 'all'").rename(columns={"form": "asked_in"})
    per_step = run.config.training.batch_size / run.config.population.n_individuals
    table["exposures"] = table["step"] * per_step
    table["tokens"] = table["exposures"] * tokens_of(run, form)
    return table[["step", "exposures", "tokens", "asked_in", "accuracy"]]


def tokens_of(run: Run, form: str) -> float:
    """How many tokens tell all facts of a person in a form, on average over the second half."""
    half = _halves(run)["in the form"]
    tokens = run.corpus.sequences(half, form, "train").tokens
    return float((tokens != run.corpus.tokenizer.pad_token_id).sum(dim=1).double().mean())


def _carried(run: Run) -> pd.DataFrame:
    model = run.model()
    parts = []
    asked = list(dict.fromkeys([form_of(run), PROSE]))
    for people, half in _halves(run).items():
        found = accuracy_by_form(answers(model, run.corpus, asked, half))
        parts.append(found.rename(columns={"form": "asked_in"}).assign(people=people))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS["carried"][2:])]


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor."""
    there = complete(tables, COLUMNS)
    found = {}
    if len(there["curves"]):
        found["model-centric-exposures"] = plots.exposures(there["curves"])
    if len(there["carried"]):
        found["model-centric-carried"] = plots.carried(there["carried"])
    return found


def claims(tables: Tables) -> list[Claim]:
    """What is claimed of forms made for the model, held against tables as made or read back from CSV."""
    return held_against(complete(tables, COLUMNS))


STUDY = Study("model_centric", __doc__, ModelCentricSettings, planned, tables, figures, claims)
