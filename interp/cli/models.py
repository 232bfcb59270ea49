"""Commands on facts of common knowledge, in models that were trained elsewhere (or here)."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from interp.cli.printing import note, say
from interp.cli.tables import show
from interp.errors import ArgumentError, ConfigError, InterpError, short

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
FactsPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FACTS.csv")]


def facts(
    model: Model,
    table: FactsPath,
    *,
    templates: Path | None = None,
    bos: bool | None = None,
    limit: int = 40,
    csv: Path | None = None,
) -> None:
    """What a model knows of facts: rank and probability of every answer.

    Example: interp facts weights/smollm2 capitals.csv --templates templates.yaml

    Args:
        model: A folder as save_pretrained writes it, one that holds checkpoint-100, checkpoint-200, ..., a
            name on the hub, or a run; of several checkpoints the last.
        table: A CSV with the columns subject, relation, answer, and text: with the subject in it, up to
            where the answer begins.
        templates: Wordings by relation, in YAML, in place of the column text; {subject} marks the subject,
            [brackets] the words of the relation.
        bos: Whether texts begin with the beginning-of-sequence token; by default what the model's own
            tokenizer does.
        limit: Show at most so many texts; 0 for all.
        csv: Write the whole table there.
    """
    from interp.files import replaceable, with_ending, write_text
    from interp.series import models_at
    from interp.tables import for_spreadsheets, header_mark

    if limit < 0:
        raise InterpError(f"--limit {limit}: give 0 for all, or how many texts to show.")
    if csv is not None:
        mark = header_mark(("subject", "relation", "answer", "wording"))
        csv = replaceable(with_ending(csv, ".csv"), mark, "a table of known facts")
    series = opened(model)
    asked = facts_for(series, table, templates, bos)
    for _, last in models_at(series, [series_steps(series)[-1]]):
        known = asked.known(last)
    guessed = int((known["rank"] == 1).sum())
    shown = known.head(limit) if limit else known
    rows = [
        (r.subject, r.relation, r.answer, f"{r.wording}", f"{r.rank:,}", f"{r.probability:.3f}",
         f"{r.answer_probability:.3f}")
        for r in shown.itertuples()
    ]  # fmt: skip
    header = ("subject", "relation", "answer", "wording", "rank", "first token", "whole answer")
    title = f"{guessed} of {len(known)} answers are the first guess"
    show(title, header, rows, right=header[3:])
    if len(shown) < len(known):
        note(f"{len(known) - len(shown)} more: --limit 0 shows all.")
    if csv is not None:
        write_text(csv, for_spreadsheets(known).to_csv(index=False))
        say(csv)


def opened(model: str) -> Any:
    """A run, a series of checkpoints, or a single model as a series of one; by what a folder holds."""
    from interp.pretrained import Series, load_model
    from interp.run import Run

    path = Path(model)
    if (path / "config.yaml").exists():
        return Run.load(path)
    if path.is_dir() and not (path / "config.json").exists():
        return Series.of_folder(path)
    return {0: load_model(model)}


def require_run(path: Path) -> None:
    """Says what a pretrained model needs, where one is given in place of a run."""
    if (path / "config.json").exists() and not (path / "config.yaml").exists():
        raise InterpError(
            f"{path} is a pretrained model, not a run. Give --facts FACTS.csv to look at what it knows."
        )


def series_steps(series: Any) -> list[int]:
    """The steps of what `opened` gave."""
    from interp.series import as_series, steps_of

    return steps_of(as_series(series))


def facts_for(series: Any, table: Path, templates: Path | None, bos: bool | None) -> Any:
    """Facts in tokens of a series' own tokenizer."""
    from interp.facts import Facts
    from interp.series import models_at

    tokenizer = getattr(series, "tokenizer", None)
    if tokenizer is None:
        _, model = next(models_at(series, [series_steps(series)[-1]]))
        tokenizer = model.tokenizer
    wordings = None if templates is None else _templates(templates)
    return Facts.from_csv(table, tokenizer, wordings, bos)


def _templates(path: Path) -> Any:
    from interp.plain_yaml import read_yaml
    from interp.reading import DamageError, read_text

    try:
        found = read_yaml(read_text(path, 10_000_000))
    except (DamageError, ConfigError) as error:
        raise ArgumentError(
            f"The templates in {path} cannot be read: {str(error).removesuffix('.')}. Give YAML with "
            "wordings by relation (`interp facts --help`)."
        ) from None
    right = isinstance(found, dict) and all(
        isinstance(one, str) or (isinstance(one, list) and all(isinstance(t, str) for t in one))
        for one in found.values()
    )
    if not right:
        raise ArgumentError(
            f"{path} holds {short(str(found), 80)}; give wordings by relation: a line such as capital: "
            "['The [capital] of {subject} is']."
        )
    return found


def locate_in_model(
    model: str,
    subject: str,
    relation: str,
    table: Path,
    templates: Path | None,
    step: int | None,
    wording: int,
    out: Path | None,
) -> None:
    """`interp locate MODEL SUBJECT RELATION --facts FACTS.csv`."""
    from interp.memory.locate import locate_fact
    from interp.report.one_fact import require_format, write_fact

    if out is not None:
        out = require_format(out)
    series = opened(model)
    asked = facts_for(series, table, templates, None)
    found = locate_fact(series, asked.prompt(subject, relation, wording), step=step)
    say(repr(found), highlight=False)
    if out is not None:
        say(write_fact(found, out))


def report_on_facts(
    models: tuple[str, ...], table: Path, templates: Path | None, out: Path | None
) -> None:
    """`interp report MODEL --facts FACTS.csv`."""
    from interp.facts.measured import measure_facts
    from interp.progress import seen, watched
    from interp.report.facts import write_facts_report

    if len(models) != 1:
        raise InterpError(
            f"--facts is of one model or series; {len(models)} are given. Give one, and --out for each page."
        )
    name = Path(models[0]).name
    series = opened(models[0])
    asked = facts_for(series, table, templates, None)
    with seen(watched, "facts", 60.0) as progress:
        measured = measure_facts(series, asked, progress=progress)
    for what, why in measured.not_measured.items():
        note(f"{what}: {why}")
    for remark in measured.remarks:
        note(remark)
    say(write_facts_report(series, measured, out or Path(f"facts_{name}.html"), name))
