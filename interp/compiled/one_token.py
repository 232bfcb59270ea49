"""A population as one of people who are one token each: what geometric memory needs."""

from os import PathLike

from interp.biographies import Population, own_people
from interp.biographies.forms.phrases import person_word
from interp.config import Config


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
    population = Population.of(config)
    table = population.table().drop(columns="individual")
    table["name"] = [person_word(i) for i in range(len(population))]
    table = table.astype("object").where(table.notna(), None)
    wordings = {
        name: list(dict.fromkeys(template.source for template in group))
        for name, group in population.lexicon.templates.items()
    }
    return config.with_settings(**own_people(table, wordings, folder))
