"""A population under other names: of one token each, which geometric memory needs, or any."""

from collections.abc import Sequence
from os import PathLike

from interp.biographies import Population, own_people
from interp.biographies.forms.phrases import person_word
from interp.config import Config
from interp.errors import ArgumentError


def one_token_people(config: Config, folder: str | PathLike[str]) -> Config:
    """The same people with the same facts and wordings, each of one word in place of a full name.

    Args:
        config: Whose people.
        folder: Where people and wordings are written, as people.csv and templates.yaml.

    Returns:
        The settings with these people. Who has which wordings in training is drawn anew.

    Example:
        ```python
        config = interp.one_token_people(interp.preset("smoke"), "runs/people")
        compiled = interp.compile_recall(config, "geometric")
        ```
    """
    n = config.population.n_individuals + config.population.n_held_out
    return renamed_people(config, [person_word(i) for i in range(n)], folder)


def renamed_people(config: Config, names: Sequence[str], folder: str | PathLike[str]) -> Config:
    """The same people with the same facts and wordings, under other names.

    Args:
        config: Whose people.
        names: A name for everybody, people held out last; words are tokens.
        folder: Where people and wordings are written, as people.csv and templates.yaml.

    Returns:
        The settings with these people. Who has which wordings in training is drawn anew.

    Raises:
        ArgumentError: there are not as many names as people, or two have the same.
    """
    population = Population.of(config)
    if len(names) != len(population):
        raise ArgumentError(f"{len(names)} names for {len(population)} people; give one for each.")
    table = population.table().drop(columns="individual")
    table["name"] = list(names)
    table = table.astype("object").where(table.notna(), None)
    wordings = {
        name: list(dict.fromkeys(template.source for template in group))
        for name, group in population.lexicon.templates.items()
    }
    return config.with_settings(**own_people(table, wordings, folder))
