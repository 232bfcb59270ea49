"""Takes the studies of a batch into the gallery: tables, figures, and the summary of their claims.

    interp batch artifacts/gallery/studies.yaml --out artifacts/studies --workers 2
    python artifacts/gallery/studies.py

Claims are made from the tables that lie in the gallery, so that a table measured elsewhere counts too. A
study can be there twice, under names of the batch's own, with other settings.
"""

import sys
from pathlib import Path

import kaleido

from interp.files import write_text
from interp.studies.batch import batch_in
from interp.studies.found import claims_table, markdown, read_tables, study_in
from interp.studies.registry import study_named
from interp.studies.study import Study

GALLERY = Path(__file__).parent
STUDIES = GALLERY / "studies"
BATCH = GALLERY.parent / "studies"


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
    claims = {}
    for folder in sorted(path for path in STUDIES.iterdir() if path.is_dir()):
        study, tables = study_named(study_in(folder)), read_tables(folder)
        found = study.claims(tables)
        claims[title_of(study, folder.name)] = found
        write_text(folder / "claims.csv", claims_table(found).to_csv(index=False))
        if only and folder.name not in only:
            continue
        for anchor, figure in study.figures(tables).items():
            # White paper: on a dark page a transparent figure's labels would be hard to read.
            figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
            height = figure.layout.height or 520
            figure.write_image(folder / f"{anchor}.svg", width=860, height=height)
    write_text(STUDIES / "README.md", "# Claims and verdicts\n\n" + markdown(claims))


if __name__ == "__main__":
    kaleido.start_sync_server()  # one browser for all figures
    main(*sys.argv[1:])
    kaleido.stop_sync_server()
