"""A population that a user brings: people of a CSV or a table, in wordings of a YAML file or a mapping.

Everything else works on it as on drawn people: `preset("tiny", **own_people("people.csv",
"templates.yaml"))`, or `--population.people` and `--population.templates` on the command line.
"""

import re
import unicodedata
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from interp.biographies.lexicon import Lexicon
from interp.biographies.population import Population
from interp.biographies.templates import Template
from interp.biographies.tokenizer import words
from interp.config import Config
from interp.errors import ArgumentError, ConfigError, RunError, printable, short, suggest
from interp.files import write_text
from interp.people_files import People, PeopleFiles, read_people

PEOPLE_FILE = "people.csv"
"""The file of a folder that holds people, as `write_people` writes it."""
TEMPLATES_FILE = "templates.yaml"
"""The file of a folder that holds their wordings."""
_WORDINGS_STREAM = 0x6F776E  # who has which wordings, apart from the streams of drawn people
_EVALUATION_SHARE = 5
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_PLACEHOLDERS = ("{name}", "{value}")


def own_people(
    people: People,
    templates: "str | PathLike[str] | Mapping[str, Any]",
    folder: "str | PathLike[str] | None" = None,
) -> dict[str, str]:
    """The settings of a run on people and wordings of yours, once they are known to work.

    Args:
        people: A CSV in UTF-8, or a `pandas.DataFrame`: a column `name` (the full name), maybe a column
            `held_out` (true or false; without it, the last tenth is held out), and an attribute a
            column. An empty cell: the person has no such value.
        templates: A YAML file, or a mapping: for each attribute at least two wordings such as
            "{name} works <for> {value}."; the words in angle brackets tell the attribute. A fifth of
            them, at least one, is kept from each person for evaluation. Maybe `questions`, a mapping of
            the same shape, for the form "question".
        folder: Where to write what was read, as people.csv and templates.yaml; needed where it is not
            in files. Settings name the files.

    Returns:
        The settings `population.people` and `population.templates`, for `preset` and `with_settings`.

    Raises:
        ArgumentError: something in them cannot work; file and line are named.

    Example:
        ```python
        settings = interp.own_people("people.csv", "templates.yaml")
        run = interp.train(interp.preset("smoke", **settings), "runs/own")
        ```
    """
    content = read_people(people, templates)
    lexicon_of(content)
    given = (people, templates)
    if folder is not None:
        write_people(content, Path(folder))
        given = Path(folder) / PEOPLE_FILE, Path(folder) / TEMPLATES_FILE
    elif not all(isinstance(one, str | PathLike) for one in given):
        raise ArgumentError(
            "A table of people, or a mapping of wordings, has no file that settings could name; give a "
            "folder, into which they are written."
        )
    return {"population.people": str(given[0]), "population.templates": str(given[1])}


def write_people(content: PeopleFiles, folder: Path) -> None:
    """Writes people and wordings into a folder, so that they read as the same again."""
    write_text(folder / TEMPLATES_FILE, content.yaml())
    write_text(folder / PEOPLE_FILE, content.csv())


def population_of_files(config: Config) -> Population:
    """The people that settings name, with their wordings drawn from the seed of the population.

    Raises:
        ArgumentError: something in the files cannot work.
        RunError: they are not those that the settings were made from.
    """
    settings = config.population
    assert settings.people is not None
    assert settings.templates is not None  # either both are named or none
    content = read_people(settings.people, settings.templates)
    if content.digest != settings.people_digest:
        raise RunError(
            f"The people in {printable(settings.people)} or the wordings in "
            f"{printable(settings.templates)} have changed since these settings were made from them. Put the "
            "files back as they were, or make the settings anew (another run)."
        )
    return population_of(content, config)


def population_of(content: PeopleFiles, config: Config) -> Population:
    """People and wordings that have been read, as a population."""
    lexicon = lexicon_of(content)
    parts = [_name_parts(name) for name in content.names]
    names = [
        _places(pool, own)
        for pool, own in zip(lexicon.names, zip(*parts, strict=True), strict=True)
    ]
    values = [_places(lexicon.values[name], own) for name, own in content.values.items()]
    generator = np.random.default_rng([_WORDINGS_STREAM, config.seed_of("population")])
    n_train, n_all = lexicon.n_train_templates, lexicon.n_templates
    wordings = np.empty((len(parts), len(values), n_all), dtype=np.uint8)
    for index, group in enumerate(content.templates.values()):
        own = np.tile(np.arange(len(group), dtype=np.uint8), (len(parts), 1))
        generator.permuted(own, axis=-1, out=own)
        train = len(group) - n_evaluation(len(group))
        # Where another attribute has more wordings, those of this one come again.
        wordings[:, index, :n_train] = own[:, np.arange(n_train) % train]
        later = train + np.arange(n_all - n_train) % (len(group) - train)
        wordings[:, index, n_train:] = own[:, later]
    return Population(
        config.population,
        np.stack(names, axis=1),
        np.stack(values, axis=1),
        wordings,
        lexicon,
        content,
    )


def n_evaluation(n_wordings: int) -> int:
    """Of so many wordings of an attribute, how many a person has for evaluation."""
    return max(1, round(n_wordings / _EVALUATION_SHARE))


def lexicon_of(content: PeopleFiles) -> Lexicon:
    """The lexicon of people and wordings that have been read.

    Raises:
        ArgumentError: a wording cannot work, or two names have the same words.
    """
    templates = {name: _parsed(name, some, content) for name, some in content.templates.items()}
    questions = {name: _parsed(name, some, content) for name, some in content.questions.items()}
    _require_apart(templates, content)
    _require_apart(questions, content)
    seen: dict[tuple[str, ...], int] = {}
    for i, name in enumerate(content.names):
        earlier = seen.setdefault(tuple(words(name)), i)
        if earlier != i:
            raise ArgumentError(
                f"{content.rows[i]}: {short(name)} and {short(content.names[earlier])} have the same words "
                "and signs, so that a model could not tell them apart. Change one."
            )
    parts = [_name_parts(name) for name in content.names]
    n_train = max(len(some) - n_evaluation(len(some)) for some in templates.values())
    n_all = n_train + max(n_evaluation(len(some)) for some in templates.values())
    return Lexicon(
        tuple(tuple(dict.fromkeys(own)) for own in zip(*parts, strict=True)),
        {name: tuple(filter(None, dict.fromkeys(own))) for name, own in content.values.items()},
        {
            name: tuple(some[i % len(some)] for i in range(n_all))
            for name, some in templates.items()
        },
        questions,
        n_train,
    )


def _name_parts(name: str) -> tuple[str, str, str]:
    """First, middle and last name; a name of one word is the last name."""
    first, *rest = name.split(" ")
    return (first, " ".join(rest[:-1]), rest[-1]) if rest else ("", "", first)


def _places(pool: tuple[str, ...], own: tuple[str, ...]) -> np.ndarray:
    """Where each entry stands in a pool; -1 for a value that is not there."""
    place = {entry: i for i, entry in enumerate(pool)}
    return np.array([place.get(entry, -1) for entry in own], dtype=np.int32)


def _parsed(
    attribute: str, wordings: tuple[str, ...], content: PeopleFiles
) -> tuple[Template, ...]:
    return tuple(
        _template(wording, content.where.get((attribute, wording), f"{attribute!r}"))
        for wording in wordings
    )


def _template(wording: str, where: str) -> Template:
    for placeholder in _PLACEHOLDER.findall(wording):
        if placeholder not in _PLACEHOLDERS:
            raise ArgumentError(
                f"{where}: {placeholder} in {short(wording, 60)} is no placeholder."
                f"{suggest(placeholder, _PLACEHOLDERS)} There are {{name}} and {{value}}."
            )
    try:
        template = Template.parse(wording)
    except ConfigError as error:
        raise ArgumentError(f"{where}: {error}") from None
    for kind, text in template.parts:
        stray = next((mark for mark in "<>{}" if mark in text), None)
        if stray is not None:
            raise ArgumentError(
                f"{where}: {short(wording, 60)} has a {stray!r} that belongs to no placeholder and no type "
                "words; leave it out."
            )
        if kind == "type" and not any(unicodedata.category(c)[0] in "LN" for c in text):
            raise ArgumentError(
                f"{where}: {short(wording, 60)} has no words in its angle brackets, which mark those that "
                "tell the attribute."
            )
    return template


def _require_apart(groups: Mapping[str, tuple[Template, ...]], content: PeopleFiles) -> None:
    """Refuses wordings after which nobody could tell whether a value follows, or which attribute's."""
    told: dict[tuple[str, ...], tuple[str, Template]] = {}
    everything = [(name, t, _symbols(t)) for name, group in groups.items() for t in group]
    for name, template, symbols in everything:
        before = symbols[: symbols.index("{value}")]
        other, earlier = told.setdefault(before, (name, template))
        if other != name:
            raise ArgumentError(
                f"{_place(content, name, template)}: {short(template.source, 60)} is up to its value "
                f"the same as {short(earlier.source, 60)} of {other!r}, so nothing tells which value follows."
            )
    for name, template, symbols in everything:
        for length in range(1, symbols.index("{value}")):
            if symbols[:length] in told:
                _, other_template = told[symbols[:length]]
                raise ArgumentError(
                    f"{_place(content, name, template)}: {short(template.source, 60)} begins like "
                    f"{short(other_template.source, 60)} up to its value, so nothing tells whether a "
                    "value or text follows there. Change one."
                )


def _place(content: PeopleFiles, name: str, template: Template) -> str:
    return content.where.get((name, template.source), f"{name!r}")


def _symbols(template: Template) -> tuple[str, ...]:
    """The words of a wording, with placeholders."""
    out: list[str] = []
    for kind, text in template.parts:
        out += words(text) if kind in ("text", "type") else [f"{{{kind}}}"]
    return tuple(out)
