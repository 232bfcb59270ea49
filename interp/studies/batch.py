"""A batch: several studies on one store of runs, described by a YAML file.

    studies:
      - study: power_law
        settings: {sizes: [256, 512, 1024]}
        seeds: [0, 1, 2]
      - study: warm_up

A run that two studies need is trained once, and a finished one never again.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from interp.config import Config, Settings, describe, flatten, meant_settings
from interp.engine import Job, Store
from interp.engine.store import address_of
from interp.errors import ConfigError, short, suggest
from interp.plain_yaml import read_yaml
from interp.reading import MAX_DOCUMENT, DamageError, MissingError, read_text
from interp.studies.registry import STUDIES, is_file, study_named
from interp.studies.study import Planned, StudySettings

RUNS = "runs"
"""The folder of a batch's runs."""
BATCH_FILE = "batch.yaml"
"""The description of a batch, in its folder."""


class Entry(Settings):
    """A study of a batch."""

    study: str
    """Its name, or the path of its Python file."""
    name: str | None = None
    """What its folder is called; the study's name by default. Needed where one study comes twice."""
    seeds: tuple[int, ...] | None = None
    """Its seeds; the study's own by default."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Its settings."""

    @model_validator(mode="after")
    def _can_be_read(self) -> "Entry":
        if self.seeds is not None and "seeds" in self.settings:
            twice = (
                f"seeds are given twice, as {list(self.seeds)} and in its settings; give them once."
            )
            raise ConfigError(f"{self.study}: {twice}")
        self.study_settings()  # raises where they cannot work
        return self

    @property
    def label(self) -> str:
        """The name of its folder, and of the study in the report."""
        return self.name or study_named(self.study).name

    def study_settings(self) -> Settings:
        """The settings that the study is given.

        Raises:
            ConfigError: it has no such setting, or not of such a value.
        """
        model = study_named(self.study).settings
        given = self.settings if self.seeds is None else self.settings | {"seeds": self.seeds}
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise ConfigError(
                describe(error, self.study, partial(_unknown, model), model=model)
            ) from error


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
    def from_yaml(cls, text: str, folder: Path | None = None) -> "Batch":
        """A batch from its description.

        Args:
            text: YAML.
            folder: Where paths of studies' files start from; by default the working directory.

        Raises:
            ConfigError: not YAML, an unknown study or setting, or a value that cannot work.
        """
        return cls.parse(read_yaml(text), folder)

    @classmethod
    def parse(cls, values: Any, folder: Path | None = None) -> "Batch":
        """A batch from plain values, with a readable error.

        Paths of studies' files are made absolute and their names kept, for when a file has gone.

        Raises:
            ConfigError: an unknown study or setting, or a value that cannot work.
        """
        if not isinstance(values, dict):
            raise ConfigError(
                "A batch is a mapping with the key `studies`: a list of entries such as "
                f"{{study: power_law, seeds: [0, 1, 2]}}. Found: {type(values).__name__}."
            )
        entries = values.get("studies")
        if isinstance(entries, list | tuple):
            values = values | {"studies": [_located(entry, folder) for entry in entries]}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(
                describe(error, "batch", partial(_unknown, cls), model=cls)
            ) from error

    def to_yaml(self) -> str:
        """The inverse of `from_yaml`."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False)


def _located(entry: Any, folder: Path | None) -> Any:
    """An entry with the absolute path of its study's file, and with that study's name."""
    if not isinstance(entry, dict) or not is_file(str(entry.get("study"))):
        return entry
    path = str(((folder or Path()) / entry["study"]).resolve())
    return {**entry, "study": path, "name": entry.get("name") or study_named(path).name}


def _unknown(model: type[Settings], place: tuple[int | str, ...]) -> str:
    """That a batch or a study has no such setting, and which it has."""
    leaf = str(place[-1])
    known = (Entry if model is Batch and len(place) > 1 else model).model_fields
    where = ".".join(map(str, place))
    hint = suggest(leaf, known)
    if not hint and issubclass(model, StudySettings):
        of_runs = meant_settings(where, flatten(Config().model_dump()))
        hint = f" A setting of all runs goes into run={{{of_runs[0]}: ...}}." if of_runs else ""
    return f"there is no setting {short(where)}.{hint} Settings: {', '.join(known)}."


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


def _is_description(values: Any) -> bool:
    entries = values.get("studies") if isinstance(values, dict) else None
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("study"), str) for entry in entries
    )


def with_others(batch: Batch, out: Path) -> Batch:
    """A batch with the studies that its folder was used for before."""
    path = out / BATCH_FILE
    try:
        before = read_yaml(read_text(path, MAX_DOCUMENT))
    except MissingError:
        return batch
    except (ConfigError, DamageError):
        before = None
    if not _is_description(before):
        raise ConfigError(
            f"{path} does not describe a batch; it is damaged or somebody else's. Delete it (runs and tables "
            "stay, and are found again by the same studies), or give another folder."
        )
    new = {entry.label for entry in batch.studies}
    kept = [e for e in before["studies"] if (e.get("name") or e["study"]) not in new]
    if not kept:
        return batch
    return Batch(studies=(*Batch.parse({"studies": kept}, out).studies, *batch.studies))


def batch_in(folder: Path) -> Batch | None:
    """The batch whose folder this is; None if it is not one. A ConfigError if its description is damaged."""
    path = folder / BATCH_FILE
    try:
        return Batch.from_yaml(read_text(path, MAX_DOCUMENT), folder)
    except MissingError:
        return None
    except DamageError as damage:
        raise ConfigError(
            f"{path} is damaged: {damage}. Put it back as it was, or run the same batch again without it."
        ) from None


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
        rows.append((entry.label, entry.study, title, len(jobs), done))
    return pd.DataFrame(rows, columns=["label", "study", "title", "runs", "finished"])
