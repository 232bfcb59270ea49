"""What single runs of the study of facts as equations measured."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew

from interp.asking import answers
from interp.biographies.population import Population
from interp.config import Config, FormConfig
from interp.contradictions import contradiction_table
from interp.equations import bits_known, interference, relative_residuals, residuals
from interp.equations.interference import ALL
from interp.equations.residuals import KNOWN, UNKNOWN
from interp.knowledge import chosen_evenly
from interp.model.build import parameter_counts
from interp.phases import NAMES
from interp.progress import silent
from interp.run import Run

CONTROL, A_THEN_B = "control", "A then B"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
RESIDUALS = (
    "mean", *(f"q{q * 100:.0f}" for q in QUANTILES), "known", "between", "unknown", "middle",
    "bimodality",
)  # fmt: skip
INTERFERENCE = ("by", "group", "other", "metric", "value", "ceiling", "shuffled", "error")
CAPACITY = (
    "n_steps", "parameters", "non_embedding", "loss", "baseline", "accuracy", "bits",
    "bits_per_parameter", "bits_per_non_embedding",
)  # fmt: skip
SOLVED = 0.1
"""Nats below which a fact is solved."""
NEAR = 0.9
"""The share of the baseline from which on nothing is known of a fact."""


def mixed(share: float) -> str:
    """What runs are called in which people have their own value in this share of their biographies."""
    return f"mixed {share:g}"


def attributes_of(config: Config) -> tuple[str, ...]:
    """The attributes that people of a run have."""
    return Population.of(config).attributes


def plain(run: Run, n_individuals: int) -> dict[str, pd.DataFrame]:
    """Residuals at every checkpoint, and interference at one of each phase."""
    return {"residuals": residual_shares(run), "interference": interferences(run, n_individuals)}


def residual_shares(run: Run) -> pd.DataFrame:
    """The distribution of residuals at every checkpoint, of each attribute and of all (`RESIDUALS`)."""
    found = residuals(run, progress=silent)
    found = found.assign(relative=relative_residuals(found))
    rows = []
    for step, at in found.groupby("step"):
        for name, part in [(ALL, at), *at.groupby("attribute", sort=False)]:
            rows.append({"step": step, "attribute": name, **distribution(part)})
    return pd.DataFrame(rows)


def distribution(table: pd.DataFrame) -> dict[str, float]:
    """How residuals are distributed: quantiles, shares and Sarle's coefficient (see the study's `tables`).

    Args:
        table: Facts, with `loss` (nats) and `relative` (loss as a share of the baseline).
    """
    relative = table["relative"].to_numpy(dtype=float)
    solved = table["loss"].to_numpy(dtype=float) < SOLVED
    unknown = (relative >= NEAR) & ~solved
    within = (relative >= KNOWN) & (relative <= UNKNOWN)
    return {
        "mean": float(relative.mean()),
        **{f"q{q * 100:.0f}": float(np.quantile(relative, q)) for q in QUANTILES},
        "known": float(solved.mean()),
        "between": float((~solved & ~unknown).mean()),
        "unknown": float(unknown.mean()),
        "middle": float(within.mean()),
        "bimodality": bimodality(relative),
    }


def bimodality(values: np.ndarray) -> float:
    """Sarle's bimodality coefficient of a sample: 5/9 for uniform values, 1 for two points; NaN of few.

    Source: SAS Institute 1990, in Pfister et al. 2013, doi:10.3389/fpsyg.2013.00700.
    """
    n = len(values)
    if n < 4 or np.ptp(values) < 1e-9:
        return float("nan")
    excess = float(kurtosis(values, bias=False))
    correction = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return (float(skew(values, bias=False)) ** 2 + 1) / (excess + correction)


def interferences(run: Run, n_individuals: int) -> pd.DataFrame:
    """Interference by attribute and by people, at the middle checkpoint of each phase, of all weights."""
    steps = phase_steps(run)
    parts = []
    for by in ("attribute", "people"):
        found = interference(
            run, list(steps.values()), by, n_individuals=n_individuals, progress=silent
        )
        parts.append(found[(found["component"] == ALL) & found["layer"].isna()])
    table = pd.concat(parts, ignore_index=True)
    return table.assign(phase=table["step"].map({step: phase for phase, step in steps.items()}))


def phase_steps(run: Run) -> dict[str, int]:
    """The middle checkpoint of each phase that has one; the untrained model stands for none."""
    found = {}
    for phase in NAMES:
        own = [step for step in run.steps if step > 0 and run.phases.at(step) == phase]
        if own:
            found[phase] = own[len(own) // 2]
    return found


def capacity(run: Run, n_measured: int) -> dict[str, pd.DataFrame]:
    """Bits known at the end, in all and for each parameter."""
    model, n = run.model(), run.config.population.n_individuals
    people = chosen_evenly(np.arange(n), min(n, n_measured), False)
    found = residuals(model, individuals=people, corpus=run.corpus, progress=silent)
    counts = parameter_counts(model)
    bits = bits_known(found, counts["total"], n).set_index("attribute").loc[ALL]
    row = {
        "n_steps": run.steps[-1], "parameters": counts["total"],
        "non_embedding": counts["non_embedding"], "loss": bits["loss"], "baseline": bits["baseline"],
        "accuracy": found["right"].mean(), "bits": bits["bits"],
        "bits_per_parameter": bits["bits_per_parameter"],
        "bits_per_non_embedding": bits["bits"] / counts["non_embedding"],
    }  # fmt: skip
    return {"capacity": pd.DataFrame([row])}


def contradiction(run: Run, attribute: str) -> dict[str, pd.DataFrame]:
    """What is known of attributes that nobody is contradicted of, and both values of those who are."""
    others = [name for name in run.corpus.attributes if name != attribute]
    curves = [run.curve("attribute_accuracy", attribute=name) for name in others]
    accuracy = pd.concat(curves, axis=1).mean(axis=1)
    found = {
        "contradiction": pd.DataFrame({"step": accuracy.index, "accuracy": accuracy.to_numpy()}),
        "groups": contradicted_groups(run, attribute),
    }
    if run.corpus.contradictions is not None:
        table = contradiction_table(run, progress=silent)
        found["contradicted"] = table.groupby("step")[["p_a", "p_b"]].mean().reset_index()
    return found


def contradicted_groups(run: Run, attribute: str) -> pd.DataFrame:
    """Accuracy and loss at the end by group: `group`, `accuracy` and `loss`.

    Groups: values that have a second one ("contradicted"), the same attribute of other people ("same
    attribute"), other attributes of the same people ("same people") and of others ("others"). Without
    contradictions, "same attribute" and "others".
    """
    found = answers(run.model(), run.corpus, "biography", progress=silent)
    told = run.corpus.contradictions
    whose = found["individual"].isin([] if told is None else told.individuals)
    about = found["attribute"] == attribute
    groups = {
        "contradicted": whose & about,
        "same attribute": ~whose & about,
        "same people": whose & ~about,
        "others": ~whose & ~about,
    }
    rows = [
        {
            "group": name,
            "accuracy": found["right"][where].mean(),
            "loss": found["loss"][where].mean(),
        }
        for name, where in groups.items()
        if where.any()
    ]
    return pd.DataFrame(rows)


def order(run: Run, forms: tuple[FormConfig, FormConfig]) -> dict[str, pd.DataFrame]:
    """Accuracy and loss of both subsystems at every checkpoint, and the stage trained until then."""
    found = answers(run, forms="biography", progress=silent)
    columns: dict[str, Any] = {}
    for name, form in zip(("one", "two"), forms, strict=True):
        own = found
        if form.people is not None:
            first, n = run.corpus.people_of(form.people)
            own = own[own["individual"].between(first, first + n - 1)]
        if form.attributes is not None:
            own = own[own["attribute"].isin(form.attributes)]
        at = own.groupby("step")
        columns |= {name: at["right"].mean(), f"{name}_loss": at["loss"].mean()}
    table = pd.DataFrame(columns).reset_index()
    stages = run.config.data.stages or ()
    names = {stage.start: _stage(stage.forms[0], forms) for stage in stages}
    trained = [
        max(start for start in names if start == 0 or start < step) for step in table["step"]
    ]
    return {"order": table.assign(stage=[names[start] for start in trained])}


def _stage(form: FormConfig, forms: tuple[FormConfig, FormConfig]) -> str:
    return {forms[0]: "one", forms[1]: "two"}.get(form, "both")
