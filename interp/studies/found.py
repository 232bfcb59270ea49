"""What the studies of a batch have found: tables, claims, and the files that hold them."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pandas as pd
import yaml

from interp.config import Settings
from interp.engine import Failure, Outcome, Store
from interp.errors import InterpError, RunError
from interp.files import replaceable, write_text
from interp.plain_yaml import read_yaml
from interp.seeds import SUMMARY
from interp.studies.batch import Entry, jobs_of, planned_runs
from interp.studies.registry import study_named
from interp.studies.rules import Claim
from interp.studies.study import Study, Tables
from interp.tables import read_undeclared

CLAIMS = "claims"
"""The file of a study's verdicts, beside its tables."""
INTERVALS = "intervals"
"""The file of the numbers that its rules read."""
_MADE_OF_TABLES = (CLAIMS, INTERVALS)
_SETTINGS = "settings.yaml"
_EMPTY = "without_rows"


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


def what_is_found(
    entry: Entry, store: Store, outcome: Outcome | None = None, folder: Path | None = None
) -> Found:
    """What a study finds: in its tables in a folder, or else in the finished runs of a store.

    Args:
        entry: The study of a batch.
        store: Of its runs.
        outcome: What became of the runs that were just trained.
        folder: Where its tables lie, if there are any; they are made from the runs otherwise.
    """
    study, settings = study_named(entry.study), entry.study_settings()
    planned = planned_runs(entry)
    jobs = {job.folder: job for p in planned for job in jobs_of(p, store)}
    done = sum(store.finished(job.config) for job in jobs.values())
    failures = [f for f in outcome.failed if f.job.folder in jobs] if outcome else []
    tables: Tables = {}
    claims: Sequence[Claim] = []
    error = ""
    try:
        tables = read_tables(folder) if folder else {}
        runs = [store.run(p.config) for p in planned if store.finished(p.config)]
        if runs and not tables:
            tables = study.tables(settings, runs)
        claims = study.claims(tables) if tables else []
    except InterpError as problem:  # a damaged checkpoint, say
        tables, error = {}, str(problem)
    except Exception as problem:  # a slip in a study of one's own; the others go on
        tables, error = {}, slip(problem, study)
    return Found(entry.label, study, settings, len(jobs), done, tables, claims, failures, error)


def slip(problem: Exception, study: Study) -> str:
    """What went wrong in the code of a study, and in which line of it."""
    frames = extract_tb(problem.__traceback__)
    code = getattr(study.tables, "__code__", None)
    own = [f for f in frames if code is not None and f.filename == code.co_filename] or frames
    where = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
    return f"{type(problem).__name__} in {where}: {problem}"


def require_found_folder(folder: Path) -> None:
    """Checks that a folder is new, empty, or one of a study, which its settings.yaml marks.

    Raises:
        RunError: it holds other files.
    """
    settings = replaceable(folder / _SETTINGS, re.compile(rb"study: "), "the settings of a study")
    there = [p.name for p in folder.iterdir() if p.name[0] != "."] if folder.is_dir() else []
    if there and not settings.exists():
        raise RunError(
            f"{folder} holds files that are no study's ({', '.join(sorted(there)[:4])}). Move them away, or "
            "give another folder."
        )


def was_found(folder: Path) -> bool:
    """Whether `write_found` has written into a folder."""
    return (folder / _SETTINGS).exists()


def write_found(found: Found, folder: Path) -> None:
    """Writes a study's tables and claims as CSV, and its settings as YAML, into a folder.

    Raises:
        RunError: the folder holds files that are no study's.
        StorageError: a file could not be written.
    """
    require_found_folder(folder)
    settings = {"study": found.study.name, "settings": found.settings.model_dump(mode="json")}
    if empty := [name for name, table in found.tables.items() if table.empty]:
        settings[_EMPTY] = empty  # of parts that the settings leave out; others are damaged
    write_text(folder / _SETTINGS, yaml.safe_dump(settings, sort_keys=False))
    for name, table in found.tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_claims(found.claims, folder)


def write_claims(claims: Sequence[Claim], folder: Path) -> None:
    """Writes claims and the numbers that their rules read as CSV into a folder.

    Raises:
        StorageError: a file could not be written.
    """
    for name, table in ((CLAIMS, claims_table(claims)), (INTERVALS, intervals_table(claims))):
        write_text(folder / f"{name}.csv", table.to_csv(index=False))


def study_in(folder: Path) -> str:
    """The name of the study that `write_found` wrote into a folder; the folder's own, where it says none."""
    settings = folder / _SETTINGS
    known = read_yaml(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    return str(known.get("study", folder.name)) if isinstance(known, dict) else folder.name


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `write_found` wrote, by name, without the claims and intervals made of them.

    Raises:
        RunError: one of them is empty, cut off, or no table.
    """
    paths = sorted(path for path in folder.glob("*.csv") if path.stem not in _MADE_OF_TABLES)
    remedy = (
        f"Delete {folder} and run the study again with the same settings (settings.yaml has them) and "
        f"`interp batch --out {folder.parent}`: runs that are finished are not trained again."
    )
    settings = folder / _SETTINGS
    known = read_yaml(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    empty = known.get(_EMPTY, []) if isinstance(known, dict) else []
    return {path.stem: read_undeclared(path, remedy, path.stem in empty) for path in paths}


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table: columns `claim`, `paper`, `measured`, `verdict`, `rule`, `power` (see `Claim`)."""
    columns = ["claim", "paper", "measured", "verdict", "rule", "power"]
    return pd.DataFrame([[getattr(c, name) for name in columns] for c in claims], columns=columns)


def intervals_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """The numbers that the rules of claims read, a row each.

    Returns:
        Columns `claim` (its number, from 1), `number` (what it is, with its unit), `group` (of which of
        several conditions), `n_seeds`, `mean`, `low` and `high` (of the seeds), `interval_low` and
        `interval_high` (the 95% interval of the mean; NaN with fewer than two seeds), `against` (the nearest
        threshold of the rule) and `seeds_needed` to tell the mean apart from it (NA for more than
        `MOST_SEEDS`, or with too few to say).
    """
    columns = ["claim", "number", "group", "n_seeds", *SUMMARY[:5], "against", "seeds_needed"]
    rows = []
    for n, claim in enumerate(claims, start=1):
        for one in claim.readings:
            ends = one.interval or (float("nan"), float("nan"))
            numbers = (one.over.mean, one.over.low, one.over.high, *ends, one.limit)
            of = (n, one.what, one.group, len(one.values))
            rows.append([*of, *(round(number, 6) for number in numbers), one.needed])
    return pd.DataFrame(rows, columns=columns).astype({"seeds_needed": "Int64"})


def changed_settings(folder: Path) -> dict[str, Any]:
    """The settings that `write_found` wrote into a folder, those that differ from the study's own."""
    written = read_yaml((folder / _SETTINGS).read_text(encoding="utf-8"))["settings"]
    own = study_named(study_in(folder)).settings().model_dump(mode="json")
    return {name: value for name, value in written.items() if value != own.get(name)}


def command_for(study: Study, settings: Mapping[str, Any], name: str = "") -> str:
    """What to type to have a study with other settings than its own.

    Its tables come into a folder of the study's name: under another `name` that is one in its own folder.
    """
    given = [f"{one}={json.dumps(value, separators=(',', ':'))}" for one, value in settings.items()]
    begin, out, end = study.command.partition(" --out ")
    changes = f" --set {shlex.join(given)}" if given else ""
    if name not in ("", study.name):
        end = end.replace("artifacts/studies", f"artifacts/{name}")
    return f"{begin}{changes}{out}{end}"


def claims_page(
    study: Study,
    claims: Sequence[Claim],
    files: Sequence[str],
    name: str = "",
    settings: Mapping[str, Any] | None = None,
) -> str:
    """A study's claims as a Markdown page: each with what was measured, its verdict and its rule.

    Args:
        study: The study.
        claims: Its claims; each is linked by `#claim-1` and so on.
        files: Names of the tables, settings and figures that lie beside the page.
        name: What a batch calls the study, where that is another name.
        settings: Those that differ from the study's own (see `changed_settings`).
    """
    title = study.title if name in ("", study.name) else f"{study.title} ({name})"
    figures = [file for file in files if file.endswith(".svg")]
    others = [f"[{file}]({file})" for file in files if file not in figures]
    lines = [
        f"# {title}",
        "",
        study.question,
        "",
        f"`{command_for(study, settings or {}, name)}`",
        "",
    ]
    n_runs = len(planned_runs(Entry(study=study.name, settings=dict(settings or {}))))
    told = (
        f"{n_runs} runs; with the study's own settings {study.duration}"
        if settings
        else study.duration
    )
    lines += [told, ""]
    lines += [f"Tables: {', '.join(others)}.", ""] if others else []
    for number, claim in enumerate(claims, start=1):
        lines += [
            f'<a id="claim-{number}"></a>', "", f"## {number}. {claim.claim}", "",
            f"**{claim.verdict}**", "", f"- *Others:* {claim.paper}", f"- *Measured:* {claim.measured}",
        ]  # fmt: skip
        lines += [f"- *Interval:* {claim.power}"] if claim.power else []
        lines += [f"- *Rule:* {claim.rule}", ""]
    for figure in figures:
        lines += [f"![{figure.removesuffix('.svg')}]({figure})", ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown(claims: Mapping[str, Sequence[Claim]]) -> str:
    """Claims of several studies, by their titles, as one Markdown table."""
    lines = ["| study | claim | paper | measured here | verdict |", "|---|---|---|---|---|"]
    for title, of_study in claims.items():
        for claim in of_study:
            cells = (title, claim.claim, claim.paper, claim.said, f"**{claim.verdict}**")
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"
