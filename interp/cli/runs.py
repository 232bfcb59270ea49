"""Commands that make a run, and those that look at one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from interp.cli.models import locate_in_model, report_on_facts, require_run
from interp.cli.printing import OUT, announce, note, say, say_not_measured
from interp.cli.tables import show, show_frame
from interp.config import Config, flatten
from interp.errors import InterpError
from interp.phases import DELTA

Settings = Annotated[Config, tyro.conf.arg(name="")]
SettingsFile = Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")]
"""Read before the flags (`parsing.with_file`), which have their defaults from it; here for the help."""
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunPaths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]


def train(base: Config) -> Callable[..., None]:
    """`interp train`, which starts from the settings of a preset."""

    def train(
        config: Settings = base,
        *,
        out: Path,
        file: SettingsFile = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Train a model on synthetic biographies.

        Example: interp train tiny --out runs/tiny --seed 1 --model.n-layers 4

        Example: interp train tiny --out runs/stages --config stages.yaml

        Args:
            config: The settings.
            out: Folder of the run.
            file: Settings in YAML, nested or by dotted name, on top of the preset; flags go on top of them.
                Stages of training (data.stages) are set here.
            resume: Go on with the run in that folder; a finished one is kept as it is.
            overwrite: Delete the run in that folder first.
        """
        from interp.training import train

        run = train(config, out, resume=resume, overwrite=overwrite)
        say(repr(run), highlight=False)

    return train


def reproduce(base: Config) -> Callable[..., None]:
    """`interp reproduce`, which starts from the settings of a preset."""

    def reproduce(
        config: Settings = base, *, out: Path, file: SettingsFile = None, overwrite: bool = False
    ) -> None:
        """The main job: train the reference model, run every stage, write the report.

        Stages that are finished are not run again, so the same command goes on after a kill.
        Writes OUT/report.html and OUT/summary.json.

        Example: interp reproduce demo --out runs/demo

        Args:
            config: The settings.
            out: Folder of the run.
            file: Settings in YAML, nested or by dotted name, on top of the preset; flags go on top of them.
            overwrite: Delete the run in that folder first.
        """
        from interp.stages import reproduce, summary

        run = reproduce(config, out, overwrite=overwrite, announce=announce)
        measured = {name: value for name, value in summary(run).items() if name != "not_measured"}
        rows = [
            (name, f"{value:.4f}" if isinstance(value, float) else value)
            for name, value in flatten(measured).items()
        ]
        show("Summary", ("quantity", "value"), rows, right=("value",))
        say_not_measured(run.not_measured)
        say(f"report: {out / 'report.html'}")

    return reproduce


def phases(run: RunPath, *, delta: float = DELTA) -> None:
    """The three phases of a run, and how they move with the tolerance delta.

    Example: interp phases runs/tiny --delta 0.1

    Args:
        run: Folder of the run.
        delta: The plateau ends where the loss stays below (1 - delta) times the baseline.
    """
    from interp.run import Run

    opened = Run.load(run)
    phases = opened.phases_at(delta)
    last = int(opened.curve().index[-1])
    ends = (phases.statistics_end, phases.plateau_end)
    statistics, plateau = ("not reached" if end is None else f"step {end}" for end in ends)
    OUT.print(
        f"baseline of these people {phases.baseline:.3f} nats, delta {delta:g}\n"
        f"1. statistics end: {statistics}\n"
        f"2. plateau ends:   {plateau}\n"
        f"last measured:     step {last}, in the phase of {phases.at(last)}",
        highlight=False,
    )
    show_frame(opened.phase_sensitivity(), "Sensitivity to delta")


def report(
    runs: RunPaths,
    *,
    facts: Path | None = None,
    templates: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write a run's report.html, a page that compares runs or is of a batch, or one of any model on facts.

    Every page is one file that opens with the network off. Compared can be seeds, patched runs, runs
    of other sizes: what they have in common is put on one axis, what only some have is said.

    Example: interp report runs/seed0 runs/seed1 runs/seed2 --out runs/seeds.html

    Args:
        runs: Folders of one run or more, each with measurements; training need not have ended. Or the
            folder of a batch (--out of `interp batch`). With --facts a model: see `interp facts --help`.
        facts: A CSV of facts; the page is then of what the model knows of them, and how it recalls it.
        templates: Wordings of the facts, in YAML; see `interp facts --help`.
        out: The file; .html is added to a name without an ending. Default: RUN/report.html; of several
            runs, comparison.html in the folder that holds the first.
    """
    from interp.batch import report_batch
    from interp.report import write_comparison, write_report
    from interp.run import Run
    from interp.studies.batch import BATCH_FILE

    if not runs:
        raise InterpError("No run is given; name the folder of at least one run.")
    if facts is not None:
        report_on_facts(tuple(map(str, runs)), facts, templates, out)
        return
    require_run(runs[0])
    if len(runs) == 1 and os.path.lexists(runs[0] / BATCH_FILE):
        say(report_batch(runs[0], out))
        return
    opened = [Run.load(path) for path in runs]
    if len(opened) == 1:
        page = write_report(opened[0], out)
    else:
        beside_first = opened[0].path.resolve().parent / "comparison.html"
        page = write_comparison(opened, beside_first if out is None else out)
    say(page)


def people(run: RunPath, *, search: str = "", limit: int = 20, held_out: bool = False) -> None:
    """A run's people with their facts: whom `interp locate` can be asked about.

    Example: interp people runs/tiny --search physics --limit 5

    Args:
        run: Folder of the run.
        search: Show only people whose name or facts hold this text, in upper or lower case.
        limit: Show at most so many; 0 for all.
        held_out: Show only people who are never trained on.
    """
    from interp.biographies import DATES_ARE_DRAWN
    from interp.run import Run

    if limit < 0:
        raise InterpError(f"--limit {limit}: give 0 for all, or how many people to show.")
    population = Run.load(run).population
    attributes, everybody = population.attributes, population.table().fillna("")
    shown = everybody[everybody["held_out"]] if held_out else everybody
    words = shown[["name", *attributes]].agg("\n".join, axis=1).str.casefold()
    found = shown[words.str.contains(search.casefold(), regex=False)]
    listed = found.head(limit) if limit else found
    n_held_out = int(everybody["held_out"].sum())
    rows = [
        (f"{row.individual}{' (held out)' if row.held_out else ''}", row.name, *row[3:])
        for row in listed.itertuples(index=False)
    ]
    show(
        f"{len(listed):,} of {len(found):,} people found, of {len(everybody):,} in all "
        f"({n_held_out:,} held out)",
        ("index", "name", *(name.replace("_", " ") for name in attributes)),
        rows,
        right=("index",),
    )
    if population.lexicon.dates:
        note(DATES_ARE_DRAWN)


def locate(
    run: RunPath,
    person: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PERSON")],
    attribute: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ATTRIBUTE")],
    *,
    step: int | None = None,
    wordings: Literal["evaluation", "train"] = "evaluation",
    context: Literal["first", "biography"] = "first",
    facts: Path | None = None,
    templates: Path | None = None,
    wording: int = 0,
    out: Path | None = None,
) -> None:
    """Where one fact of a person sits: which heads and MLPs bring it, and from which token.

    Example: interp locate runs/tiny 12 university --step 300 --out fact.html

    Example: interp locate weights/smollm2 France capital --facts capitals.csv

    Args:
        run: Folder of the run; with --facts any model (see `interp facts --help`).
        person: A full name, an index, or a part of a name that nobody else has (`interp people RUN`
            lists them).
        attribute: birth place, birth date, current location, university, major or company; words
            joined by _ or -, or in quotation marks.
        step: A step with a checkpoint; the last by default.
        wordings: evaluation: a sentence never seen with this person; train: one seen in training.
        context: first: the fact is told first; biography: after the sentences that come before it.
        facts: A CSV of facts: PERSON is then a subject and ATTRIBUTE a relation in it.
        templates: Wordings of the facts, in YAML; see `interp facts --help`.
        wording: Which of the wordings of the fact, from 0.
        out: A file for the figure: .html (opens with the network off; added to a name without an ending),
            .svg or .png.
    """
    from interp.memory.locate import locate_fact
    from interp.report.one_fact import require_format, write_fact
    from interp.run import Run

    if facts is not None:
        locate_in_model(str(run), person, attribute, facts, templates, step, wording, out)
        return
    require_run(run)
    if out is not None:
        out = require_format(out)  # before a model is read
    found = locate_fact(Run.load(run), person, attribute, step, wordings, context=context)
    say(repr(found), highlight=False)
    if out is not None:
        say(write_fact(found, out))


def summary(runs: RunPaths, *, csv: Path) -> None:
    """One table of the summaries of several finished runs, e.g. of several seeds.

    Example: interp summary runs/seed0 runs/seed1 --csv seeds.csv

    Args:
        runs: Folders of runs that `interp reproduce` has finished.
        csv: The table to write, a row a run; .csv is added to a name without an ending.
    """
    from interp.files import replaceable, with_ending, write_text
    from interp.stages import summary_table
    from interp.tables import for_spreadsheets, header_mark

    mark = header_mark(("preset", "seed", "n_individuals", "steps"))
    csv = replaceable(with_ending(csv, ".csv"), mark, "a table of summaries")
    table = summary_table(runs)
    write_text(csv, for_spreadsheets(table).to_csv(index=False))
    transposed = table.set_index("seed").T.rename_axis("quantity").reset_index()
    show_frame(transposed, "Summaries, a column a seed")
    say(csv)


def export(
    run: RunPath,
    *,
    out: Path,
    step: int | None = None,
    format: Literal["transformer-lens", "huggingface"] = "transformer-lens",
) -> None:
    """Export a checkpoint for other programs.

    Example: interp export runs/tiny --out exported --step 500 --format huggingface

    Args:
        run: Folder of the run.
        out: Folder to write.
        step: A step with a checkpoint; the last by default.
        format: transformer-lens: the property format of TransformerLens 2 and 3; huggingface: a folder for
            AutoModelForCausalLM and AutoTokenizer of the transformers library.
    """
    from interp.model import export_huggingface, export_model
    from interp.run import Run

    opened = Run.load(run)
    model = opened.model(step)
    description = f"seed {opened.config.seed}, step {opened.steps[-1] if step is None else step}"
    write = export_huggingface if format == "huggingface" else export_model
    say(write(model, out, description))
