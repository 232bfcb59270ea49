"""The runs that a page compares: what they have, what they share, and what they lack."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from interp.errors import ConfigError, RunError
from interp.phases import Phases
from interp.presets import PRESETS
from interp.report.elements import LeftOut, Section, section
from interp.report.run_labels import run_labels, seed_groups
from interp.report.run_tables import nothing_to_measure
from interp.run import Run
from interp.seeds import all_of

_MEMORY_STAGES = ("attention", "memory", "interventions", "emergence")


@dataclass(frozen=True)
class Compared:
    """The runs of a page by their labels, in order.

    Attributes:
        runs: By label.
        groups: Labels of runs that are seeds of one configuration; each of two or more.
    """

    runs: Mapping[str, Run]
    groups: Sequence[Sequence[str]]

    @property
    def labels(self) -> list[str]:
        """The labels, in order."""
        return list(self.runs)

    @cached_property
    def phases(self) -> dict[str, Phases]:
        """The phases of each run."""
        return {label: run.phases for label, run in self.runs.items()}

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of all runs, with the column `run`."""
        return pd.concat(
            [run.metrics.assign(run=label) for label, run in self.runs.items()], ignore_index=True
        )

    @cached_property
    def measured_on_everybody(self) -> bool:
        """Whether all runs have final numbers of everybody, so that they can be compared."""
        return all(run.result("knowledge", "final") is not None for run in self.runs.values())

    @property
    def one_configuration(self) -> bool:
        """Whether all runs are seeds of one configuration."""
        return len(self.groups) == 1 and len(self.groups[0]) == len(self.runs)

    def curves(self, metric: str, split: str = "evaluation") -> pd.DataFrame:
        """One metric of all runs that have it: `run`, `step`, `value`."""
        table = self.metrics
        chosen = (table["metric"] == metric) & (table["split"] == split)
        return table.loc[chosen & (table["attribute"] == "all"), ["run", "step", "value"]]

    def final(self, label: str, metric: str, split: str = "evaluation") -> float | None:
        """A run's last value of a metric; None where it was not measured."""
        table = self.runs[label].result("knowledge", "final")
        if not self.measured_on_everybody or table is None:
            table = self.runs[label].metrics
        chosen = (table["metric"] == metric) & (table["split"] == split)
        values = table.loc[chosen & (table["attribute"] == "all"), "value"]
        return float(values.iloc[-1]) if len(values) else None

    def results(self, stage: str, name: str) -> dict[str, pd.DataFrame]:
        """A stage's table of every run that has it and it is not empty."""
        found = {label: run.result(stage, name) for label, run in self.runs.items()}
        return {label: table for label, table in found.items() if table is not None and len(table)}

    def reasons(self, table: str) -> dict[str, str]:
        """Why there was nothing to measure for a table, `stage/table`, by the runs of which that is so."""
        found = {label: run.not_measured.get(table) for label, run in self.runs.items()}
        return {label: why for label, why in found.items() if why is not None}

    def present(self, table: pd.DataFrame) -> list[str]:
        """The runs that a table has rows of, in order."""
        return [label for label in self.runs if label in set(table["run"])]

    def able(self, stage: str) -> list[str]:
        """The runs that can have a stage.

        A patched run is not the reference of others, and a recurrent one has no attention.
        """
        return [
            label
            for label, run in self.runs.items()
            if run.config.model.recurrence is None
            and (stage != "patching" or not run.config.patching.on)
        ]

    def commands(self, stage: str, has: Mapping[str, object]) -> list[str]:
        """What to type to give a stage's results to the runs that can have them and do not."""
        return [_command(self.runs[label], stage) for label in self.able(stage) if label not in has]


def compare(runs: Sequence[Run | Path | str]) -> Compared:
    """Opens and labels the runs of a comparison; raises what `write_comparison` does."""
    opened = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if len(opened) < 2:
        raise ConfigError("A comparison needs two runs or more; give their folders.")
    folders = [run.path.resolve() for run in opened]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise ConfigError(
                f"{opened[i].given} is given twice; name every run once, so that none counts double."
            )
    for run in opened:
        table = run.metrics
        if table[table["metric"] == "attribute_loss"].empty:
            raise RunError(
                f"{run.given} has no measurements yet: there is nothing to compare. Train it with "
                "`interp train --resume`, or leave it out."
            )
    configs = [run.config for run in opened]
    labels = run_labels(configs, folders)
    groups = [[labels[place] for place in group] for group in seed_groups(configs)]
    return Compared(dict(zip(labels, opened, strict=True)), groups)


def find_tables(compared: Compared, name: str) -> pd.DataFrame | LeftOut:
    """A stage's table, `stage/table`, of the runs that have it, with the column `run`.

    Where fewer than two have it, why.
    """
    stage, table = name.split("/")
    found, able = compared.results(stage, table), compared.able(stage)
    if len(found) >= 2:
        return together(found)
    if len(able) < 2:
        patched = any(run.config.patching.on for run in compared.runs.values())
        if stage == "patching" and patched:
            return LeftOut("a patched run has none, as it is no reference of others")
        return LeftOut("a recurrent run has none, as it has no attention")
    has = f"only {listed(found)} has been measured" if found else "no run has been measured"
    reasons = compared.reasons(name)
    has += "".join(f"; {label}: {nothing_to_measure(why).why}" for label, why in reasons.items())
    return LeftOut(has, compared.commands(stage, {**found, **reasons}))


def of_runs(
    title: str, anchor: str, needs: Sequence[str] = (), uses: Sequence[str] = ()
) -> Callable[[Callable[..., Section | LeftOut]], Callable[[Compared], Section | LeftOut]]:
    """Makes a builder of a function that takes the runs and their tables (see `section`).

    The section says which runs have no table of the first stage that it needs.
    """
    decorate = section(find_tables, title, anchor, needs, uses)

    def with_lacks(
        build: Callable[..., Section | LeftOut],
    ) -> Callable[[Compared], Section | LeftOut]:
        inner = decorate(build)

        def built(compared: Compared) -> Section | LeftOut:
            made = inner(compared)
            if isinstance(made, LeftOut) or not needs:
                return made
            stage, table = needs[0].split("/")
            found = compared.results(stage, table)
            reasons = compared.reasons(needs[0])
            lacks = [
                replace(nothing_to_measure(why), title=f"{title} of {label}")
                for label, why in reasons.items()
            ]
            known = {**found, **reasons}
            lacking = [label for label in compared.able(stage) if label not in known]
            if lacking:
                who = f"{title} of {listed(lacking)}"
                lacks.append(LeftOut("not measured", compared.commands(stage, known), who))
            return replace(made, lacks=[*made.lacks, *lacks])

        return built

    return with_lacks


def together(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of several runs below each other, with the column `run`."""
    return pd.concat(
        [table.assign(run=label) for label, table in tables.items()], ignore_index=True
    )


def common_steps(table: pd.DataFrame) -> list[int]:
    """The steps that every run of a table has, in order."""
    of_run = [{int(step) for step in steps} for _, steps in table.groupby("run")["step"]]
    return sorted(set.intersection(*of_run)) if of_run else []


def listed(labels: Sequence[str] | Mapping[str, object]) -> str:
    """Labels in words: a, b and c."""
    *most, last = list(labels)
    return f"{', '.join(most)} and {last}" if most else last


def spread(
    values: Mapping[Any, float], form: str, *, mean: bool = False, what: str | None = "run"
) -> str:
    """In words: from the lowest (its run) to the highest (its run), the mean before if asked for.

    Where all are alike, the one value "in both runs"; `what` is what there are values of, None where the
    sentence has said it.
    """
    low, high = min(values, key=lambda n: values[n]), max(values, key=lambda n: values[n])
    if form.format(values[low]) == form.format(values[high]):
        whose = f" in {all_of(len(values), what)}" if what else ""
        return form.format(values[low]) + (whose if len(values) > 1 else f" ({low})")
    extent = f"{form.format(values[low])} ({low}) to {form.format(values[high])} ({high})"
    if mean:
        average = form.format(sum(values.values()) / len(values))
        return f"{average} in the mean, from {extent}"
    return extent


def _command(run: Run, stage: str) -> str:
    """What to type to give a run a stage's results."""
    folder = str(run.given)
    if stage in _MEMORY_STAGES and run.finished:
        return shlex.join(["interp", "memory", folder])
    known = PRESETS.get(run.config.preset)
    if known is None:
        return shlex.join(["interp", "reproduce", "--out", folder]) + " with the run's settings"
    words = ["interp", "reproduce", run.config.preset, "--out", folder]
    ours, theirs = run.config.identity(), known.identity()
    for name in sorted(name for name in ours if ours[name] != theirs.get(name)):
        if name == "patching.reference_run":
            words += ["--patching.reference", str(run.config.patching.reference)]
            continue
        value = ours[name]
        words.append(f"--{name.replace('_', '-')}")
        words += [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
    return shlex.join(words)
