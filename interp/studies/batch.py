"""A batch: several studies on one store of runs, described by a YAML file.

    studies:
      - study: power_law
        settings: {sizes: [256, 512, 1024]}
        seeds: [0, 1, 2]
      - study: warm_up

A run that two studies need is trained once, and a finished one never again. What the studies find is
written to a folder for each: its tables, `claims.csv`, and the settings it was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from interp.config import Settings
from interp.engine import EngineSettings, Failure, Job, Outcome, Store, run_jobs
from interp.engine.store import address_of
from interp.errors import ConfigError, InterpError, suggest
from interp.files import write_text
from interp.progress import Progress
from interp.studies.registry import STUDIES
from interp.studies.study import Claim, Planned, Study, Tables
from interp.tables import read_undeclared

CLAIMS = "claims"
"""The file of a study's verdicts, beside its tables."""
RUNS = "runs"
"""The folder of a batch's runs."""
BATCH_FILE = "batch.yaml"
"""The description of a batch, in its folder."""


class Entry(Settings):
    """A study of a batch."""

    study: str
    """Its name."""
    name: str | None = None
    """What its folder is called; the study's name by default. Needed where one study comes twice."""
    seeds: tuple[int, ...] | None = None
    """Its seeds; the study's own by default."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Its settings."""

    @model_validator(mode="after")
    def _can_be_read(self) -> "Entry":
        if self.seeds is not None and "seeds" in self.settings:
            raise ConfigError(
                f"{self.study}: seeds are given twice, as {list(self.seeds)} and in its settings; give "
                "them once."
            )
        self.study_settings()  # raises where they cannot work
        return self

    @property
    def label(self) -> str:
        """The name of its folder, and of the study in the report."""
        return self.name or self.study

    def study_settings(self) -> Settings:
        """The settings that the study is given.

        Raises:
            ConfigError: it has no such setting, or not of such a value.
        """
        model = study_named(self.study).settings
        given = dict(self.settings)
        if self.seeds is not None:
            given["seeds"] = self.seeds
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise ConfigError(_described(self.study, model, error)) from error


class Batch(Settings):
    """Which studies to do, with which settings and seeds."""

    studies: tuple[Entry, ...]
    """The studies, in the order of the report."""

    @model_validator(mode="after")
    def _labels_differ(self) -> "Batch":
        labels = [entry.label for entry in self.studies]
        if not labels:
            raise ConfigError("The batch has no study; name at least one under `studies`.")
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(
                    f"The batch has {label!r} twice, which would write into one folder; give one of "
                    "them another `name`."
                )
            if label == RUNS or not label.replace("_", "").replace("-", "").isalnum():
                raise ConfigError(
                    f"The name {label!r} of a study becomes a folder's; use letters, digits, _ and -, and "
                    f"not {RUNS!r}, where the runs lie."
                )
        return self

    @classmethod
    def from_yaml(cls, text: str) -> "Batch":
        """A batch from its description.

        Raises:
            ConfigError: not YAML, an unknown study or setting, or a value that cannot work.
        """
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"Not a YAML file: {error}") from error
        return cls.parse(values)

    @classmethod
    def parse(cls, values: Any) -> "Batch":
        """A batch from plain values, with a readable error.

        Raises:
            ConfigError: an unknown study or setting, or a value that cannot work.
        """
        if not isinstance(values, dict):
            raise ConfigError(
                "A batch is a mapping with the key `studies`: a list of entries such as "
                f"{{study: power_law, seeds: [0, 1, 2]}}. Found: {type(values).__name__}."
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_described("batch", cls, error)) from error

    def to_yaml(self) -> str:
        """The inverse of `from_yaml`."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def study_named(name: str) -> Study:
    """The study of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in STUDIES:
        raise ConfigError(
            f"There is no study {name!r}.{suggest(name, STUDIES)} Studies: {', '.join(STUDIES)}."
        )
    return STUDIES[name]


def _described(owner: str, model: type[Settings], error: ValidationError) -> str:
    """A pydantic error in one line a setting, with what there is to set."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            leaf = str(item["loc"][-1])
            nested = Entry if model is Batch and len(item["loc"]) > 1 else model
            known = nested.model_fields
            lines.append(
                f"{owner}: there is no setting {place!r}.{suggest(leaf, known)} Settings: "
                f"{', '.join(known)}."
            )
        elif item["type"] == "missing":
            lines.append(f"{owner}: {place} is missing; set it.")
        else:
            lines.append(f"{owner}: {place}: {item['msg']} (got {item['input']!r}).")
    return "\n".join(lines)


@dataclass(frozen=True)
class Found:
    """What a study of a batch has found.

    Attributes:
        label: Its name in the batch.
        study: The study.
        settings: Its settings.
        n_runs: How many runs it needs.
        n_finished: How many of them are finished.
        tables: Tables of the finished ones; none without any.
        claims: The paper's statements held against them.
        failures: Its runs that could not be finished.
        error: Why its tables could not be made from finished runs; empty if they could.
    """

    label: str
    study: Study
    settings: Settings
    n_runs: int
    n_finished: int
    tables: Tables
    claims: Sequence[Claim]
    failures: Sequence[Failure] = ()
    error: str = ""


def run_batch(
    batch: Batch,
    out: Path | str,
    engine: EngineSettings | None = None,
    *,
    progress: bool | Progress = True,
) -> list[Found]:
    """Trains the runs that are not finished, and writes what the studies find.

    A run that fails stops no other, and neither does a study whose tables cannot be made; studies are
    made from the runs that are there. The same command goes on after a kill. Another batch in the same
    folder shares its runs, and is added to its description.

    Args:
        batch: The studies.
        out: Folder of the batch: `runs/` (the store), and a folder for each study.
        engine: Where runs are trained; in this process by default.
        progress: Show progress of all runs together on standard error; or where to report it to.

    Returns:
        What each study has found, in the order of the batch.

    Raises:
        ConfigError: a study's settings cannot work.
        StorageError: a table could not be written; complete files are intact.
    """
    out = Path(out)
    store = Store(out / RUNS)
    planned = {entry.label: planned_runs(entry) for entry in batch.studies}
    jobs = [job for of_study in planned.values() for p in of_study for job in jobs_of(p, store)]
    write_text(out / BATCH_FILE, _with_others(batch, out).to_yaml())
    outcome = run_jobs(jobs, engine or EngineSettings(), progress=progress)
    found = []
    for entry in batch.studies:
        of_study = what_is_found(entry, planned[entry.label], store, outcome)
        write_found(of_study, out / entry.label)
        found.append(of_study)
    return found


def planned_runs(entry: Entry) -> list[Planned]:
    """The runs that an entry of a batch needs, each once."""
    study = study_named(entry.study)
    return list({address_of(p.config): p for p in study.runs(entry.study_settings())}.values())


def jobs_of(planned: Planned, store: Store) -> list[Job]:
    """The jobs of a planned run: those of its base first, then its own."""
    if planned.base is None:
        return [store.job(planned.config)]
    base = jobs_of(planned.base, store)
    folder = base[-1].folder
    config = planned.config.with_settings(**{"finetuning.base": str(folder)})
    return [*base, store.job(config, needs=(folder,))]


def _with_others(batch: Batch, out: Path) -> Batch:
    """A batch with the studies that its folder was used for before."""
    before = batch_in(out)
    new = {entry.label for entry in batch.studies}
    others = [entry for entry in (before.studies if before else ()) if entry.label not in new]
    return Batch(studies=(*others, *batch.studies))


def what_is_found(
    entry: Entry, planned: Sequence[Planned], store: Store, outcome: Outcome | None = None
) -> Found:
    """What a study finds in the runs of a store that are finished."""
    study, settings = study_named(entry.study), entry.study_settings()
    runs = [store.run(p.config) for p in planned if store.finished(p.config)]
    jobs = {job.folder: job for p in planned for job in jobs_of(p, store)}
    folders = set(jobs)
    done = sum(store.finished(job.config) for job in jobs.values())
    failures = [f for f in outcome.failed if f.job.folder in folders] if outcome else []
    tables: Tables = {}
    claims: Sequence[Claim] = []
    error = ""
    try:
        if runs:
            tables = study.tables(settings, runs)
            claims = study.claims(tables)
    except InterpError as problem:  # a damaged checkpoint, say
        tables, error = {}, str(problem)
    return Found(entry.label, study, settings, len(folders), done, tables, claims, failures, error)


def write_found(found: Found, folder: Path) -> None:
    """Writes a study's tables and claims as CSV, and its settings as YAML, into a folder."""
    settings = {"study": found.study.name, "settings": found.settings.model_dump(mode="json")}
    write_text(folder / "settings.yaml", yaml.safe_dump(settings, sort_keys=False))
    for name, table in found.tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_text(folder / f"{CLAIMS}.csv", claims_table(found.claims).to_csv(index=False))


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `write_found` wrote, by name, without the claims.

    Raises:
        RunError: one of them is empty, cut off, or no table.
    """
    paths = sorted(path for path in folder.glob("*.csv") if path.stem != CLAIMS)
    remedy = (
        f"Delete {folder} and run the study again with the same settings (settings.yaml has them) and "
        f"`interp batch --out {folder.parent}`: runs that are finished are not trained again."
    )
    return {path.stem: read_undeclared(path, remedy) for path in paths}


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table: columns `claim`, `paper`, `measured`, `verdict`, `rule`."""
    columns = ["claim", "paper", "measured", "verdict", "rule"]
    return pd.DataFrame([[getattr(c, name) for name in columns] for c in claims], columns=columns)


def markdown(claims: Mapping[str, Sequence[Claim]]) -> str:
    """Claims of several studies, by their titles, as one Markdown table: the README's summary."""
    lines = ["| study | claim | paper | measured here | verdict |", "|---|---|---|---|---|"]
    for title, of_study in claims.items():
        for claim in of_study:
            cells = (title, claim.claim, claim.paper, claim.measured, f"**{claim.verdict}**")
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def batch_in(folder: Path) -> Batch | None:
    """The batch whose folder this is; None if it is not one."""
    path = folder / BATCH_FILE
    return Batch.from_yaml(path.read_text(encoding="utf-8")) if path.exists() else None


def everything() -> Batch:
    """Every study with its own settings."""
    return Batch(studies=tuple(Entry(study=name) for name in STUDIES))


def state(batch: Batch, folder: Path | None = None) -> pd.DataFrame:
    """How much of a batch is finished in its folder; without one, nothing is.

    Returns:
        Columns `label`, `study`, `title`, `runs` (needed), `finished`.
    """
    store = Store((folder or Path()) / RUNS)
    rows = []
    for entry in batch.studies:
        jobs = {job.folder: job for p in planned_runs(entry) for job in jobs_of(p, store)}
        done = sum(store.finished(job.config) for job in jobs.values()) if folder else 0
        title = study_named(entry.study).title
        rows.append(
            {
                "label": entry.label,
                "study": entry.study,
                "title": title,
                "runs": len(jobs),
                "finished": done,
            }
        )
    return pd.DataFrame(rows)
