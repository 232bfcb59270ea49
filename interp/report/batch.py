"""The page of a batch: what the paper claims, what was measured, and the verdict of a stated rule."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import yaml

from interp.files import write_text
from interp.report.elements import LeftOut, Listing, Section, Table
from interp.report.html import page_to_write, render
from interp.studies.found import Found, slip
from interp.studies.rules import VERDICTS, Claim


def write_batch_report(found: Sequence[Found], path: Path | str) -> Path:
    """Writes the page of a batch.

    Args:
        found: What each study has found.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    sections = [_summary(found), *(_section(of_study) for of_study in found)]
    write_text(target, render("What the studies found", headline(found), sections))
    return target


def headline(found: Sequence[Found]) -> str:
    """How many claims agree, in one sentence, and what is missing."""
    claims = [claim for of_study in found for claim in of_study.claims]
    counts: Counter[str] = Counter(claim.verdict for claim in claims)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    missing = sum(of_study.n_runs - of_study.n_finished for of_study in found)
    text = f"{len(claims)} claims of {len(found)} studies, held against what was measured: {said or 'none'}."
    if missing:
        text += f" {missing} runs are not finished: what follows is made without them."
    return text


def verdict_sentence(claim: Claim) -> str:
    """The verdict on a claim in a sentence: agree, disagree, or cannot tell at this scale."""
    verb = {
        "agree": "What was measured agrees",
        "disagree": "What was measured disagrees",
        "cannot tell": "At this scale it cannot be told",
    }[claim.verdict]
    return f"{claim.claim.rstrip('.')}: {verb[0].lower()}{verb[1:]}."


def _summary(found: Sequence[Found]) -> Section:
    rows = [
        (of_study.study.title, claim.claim, claim.paper, claim.said, claim.verdict)
        for of_study in found
        for claim in of_study.claims
    ]
    runs = [
        (of_study.study.title, of_study.label, f"{of_study.n_finished} of {of_study.n_runs}")
        for of_study in found
    ]
    failures = {f.job.folder: f for of_study in found for f in of_study.failures}.values()
    tables = [
        Table(
            "Each claim of the paper, what was measured, and the verdict; its rule is in the study's "
            "section.",
            ("study", "claim", "paper", "measured here", "verdict"),
            rows,
        ),
        Table("Runs that each study needs and that are finished.", ("study", "name", "runs"), runs),
    ]
    if failures:
        tables.append(
            Table(
                "Runs that could not be finished. The same command tries them again.",
                ("run", "error", "attempts"),
                [(f.job.folder.name, f"{f.error}: {f.message}", str(f.attempts)) for f in failures],
            )
        )
    return Section("Claims and verdicts", "summary", tables=tables)


def _section(found: Found) -> Section:
    anchor = found.label.replace("_", "-").lower()
    study, lacks = found.study, []
    figures: Mapping[str, go.Figure] = {}
    try:
        figures = study.figures(found.tables) if found.tables else {}
    except Exception as problem:  # a slip in a study of one's own; the page is written all the same
        lacks.append(LeftOut(f"its figures could not be drawn: {slip(problem, study)}"))
    settings = yaml.safe_dump(found.settings.model_dump(mode="json"), sort_keys=False)
    if found.error:
        lacks.append(LeftOut(f"its tables could not be made: {found.error}"))
    elif not found.tables:
        lacks.append(LeftOut("no run of this study is finished, so there is nothing to show yet"))
    title = study.title
    title = title if found.label == study.name else f"{title}: {found.label}"
    return Section(
        title,
        anchor,
        sentence=" ".join(verdict_sentence(claim) for claim in found.claims),
        text=[study.question, f"Made by `{study.command}`: {study.duration}."],
        figures={f"{anchor}-{name}": figure for name, figure in figures.items()},
        tables=[claims_section_table(found.claims)] if found.claims else [],
        downloads={f"{anchor}-{name}": table for name, table in found.tables.items()},
        listings=[Listing("Settings of the study", settings)],
        lacks=[replace(one, title=title) for one in lacks],
    )


def claims_section_table(claims: Sequence[Claim]) -> Table:
    """The claims of one study with the rule of each verdict."""
    return Table(
        "The paper's claims and how each verdict is decided.",
        ("claim", "paper", "measured here", "verdict", "rule"),
        [(c.claim, c.paper, c.said, c.verdict, c.rule) for c in claims],
    )
