"""Takes the studies of a batch into the gallery: tables, figures, and pages of their claims.

    interp batch artifacts/gallery/studies.yaml --out artifacts/studies --workers 2
    python artifacts/gallery/studies.py

Claims are made from the tables that lie in the gallery, so that a table measured elsewhere counts too. A
study can be there twice, under names of the batch's own, with other settings.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import kaleido

from interp.files import write_text
from interp.studies.batch import batch_in
from interp.studies.found import (
    changed_settings,
    claims_page,
    markdown,
    read_tables,
    study_in,
    write_claims,
)
from interp.studies.registry import study_named
from interp.studies.rules import Claim
from interp.studies.study import Study, Tables

GALLERY = Path(__file__).parent
STUDIES = GALLERY / "studies"
BATCH = GALLERY.parent / "studies"
FINDINGS = GALLERY.parents[1] / "docs" / "findings.md"
ROW = re.compile(
    r"^(?P<begin>\| \[`(?P<name>\w+)`\]\([^)]*\) \| (?P<claim>[^|]+) \| [^|]+ \| [^|]+ \| )[^|]+\|$",
    re.MULTILINE,
)
"""A row of the findings: study, claim, paper, measured, verdict."""


def title_of(study: Study, label: str) -> str:
    """What a study is called in the summary."""
    return study.title if label == study.name else f"{study.title} ({label})"


def main(*only: str) -> None:
    """Copies and draws the studies, or only some, and writes the summary of all."""
    batch = batch_in(BATCH)
    for entry in batch.studies if batch else ():
        if only and entry.label not in only:
            continue
        for path in [*(BATCH / entry.label).glob("*.csv"), BATCH / entry.label / "settings.yaml"]:
            write_text(STUDIES / entry.label / path.name, path.read_text(encoding="utf-8"))
    claims, all_claims = {}, {}
    for folder in sorted(path for path in STUDIES.iterdir() if path.is_dir()):
        study, tables = study_named(study_in(folder)), read_tables(folder)
        found = study.claims(tables)
        claims[title_of(study, folder.name)] = found
        all_claims[folder.name] = found
        write_claims(found, folder)
        if not only or folder.name in only:
            draw(study, tables, folder)
        files = sorted(p.name for p in folder.iterdir() if p.name != "README.md")
        write_text(
            folder / "README.md",
            claims_page(study, found, files, folder.name, changed_settings(folder)),
        )
    write_text(STUDIES / "README.md", "# Claims and verdicts\n\n" + markdown(claims))
    text = FINDINGS.read_text(encoding="utf-8")
    write_text(FINDINGS, with_verdicts(text, all_claims))


def draw(study: Study, tables: Tables, folder: Path) -> None:
    """Writes the figures of a study, without those of an older version."""
    for old in folder.glob("*.svg"):
        old.unlink()
    for anchor, figure in study.figures(tables).items():
        # White paper: on a dark page a transparent figure's labels would be hard to read.
        figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
        height = figure.layout.height or 520
        figure.write_image(folder / f"{anchor}.svg", width=860, height=height)


def with_verdicts(findings: str, claims: Mapping[str, Sequence[Claim]]) -> str:
    """The findings, with the verdict of each row as the tables have it, linked to the claim with its rule.

    A row begins with a link to the study's folder and names the claim word by word.
    """

    def linked(row: re.Match[str]) -> str:
        name, claim = row["name"], row["claim"]
        of_study = {one.claim: i for i, one in enumerate(claims.get(name, ()), start=1)}
        if claim not in of_study:
            raise SystemExit(
                f"docs/findings.md has a row of {name} with the claim {claim!r}, which there is not. "
                f"Write one of: {'; '.join(of_study) or 'none, there is no such study'}"
            )
        number = of_study[claim]
        found = claims[name][number - 1]
        link = f"../artifacts/gallery/studies/{name}/README.md#claim-{number}"
        return f"{row['begin']}[**{found.verdict}**]({link}) |"

    return ROW.sub(linked, findings)


if __name__ == "__main__":
    kaleido.start_sync_server()  # one browser for all figures
    main(*sys.argv[1:])
    kaleido.stop_sync_server()
