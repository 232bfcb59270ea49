"""People of a CSV, shown before a run is trained on them."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from interp.cli.printing import note, say
from interp.cli.tables import show
from interp.config import Config
from interp.errors import InterpError

if TYPE_CHECKING:
    from interp.biographies import Corpus

_People = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PEOPLE.csv")]
_Templates = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TEMPLATES.yaml")]


def preview(
    people: _People,
    templates: _Templates,
    *,
    form: str = "biography",
    sequences: int = 3,
    limit: int = 10,
    tokenizer: Literal["word", "bpe"] = "word",
    seed: int = 0,
) -> None:
    """People and wordings of your own, as a run would be trained on them; nothing is written.

    Shows who there is, their attributes, and sequences in tokens: the name in [], the words that tell the
    attribute in <>, the value in {}.

    Example: interp preview people.csv templates.yaml --form question

    Args:
        people: A CSV with a column name, maybe held_out, and an attribute a column.
        templates: YAML with the wordings of each attribute.
        form: The form of the sequences: biography, question, triple, mnemonic, ...
        sequences: How many sequences to show.
        limit: Show at most so many people; 0 for all.
        tokenizer: A token per word, or subwords.
        seed: Of the wordings' split and the sequences.
    """
    from interp.biographies import BIOGRAPHY, Corpus, Population, tokenizer_of

    if limit < 0:
        raise InterpError(f"--limit {limit}: give 0 for all, or how many people to show.")
    if sequences < 0:
        raise InterpError(f"--sequences {sequences}: give 0 for none, or how many to show.")
    config = Config(seed=seed).with_settings(
        **{
            "population.people": people, "population.templates": templates,
            "tokenizer.kind": tokenizer,
            "data.vocabulary": None if form == BIOGRAPHY else [form],
        }
    )  # fmt: skip
    population = Population.of(config)
    corpus = Corpus.of(config, population, tokenizer_of(config, population.lexicon))
    batch = corpus.sequences(
        slice(0, max(sequences, 1)), form, "train"
    )  # before anything is printed
    _show_attributes(corpus)
    everybody = population.table().fillna("")
    listed = everybody.head(limit) if limit else everybody
    held_out = population.config.n_held_out
    show(
        f"{len(listed):,} of {len(everybody):,} people ({held_out:,} held out)",
        ("index", "name", *(name.replace("_", " ") for name in population.attributes)),
        [
            (f"{row[0]}{' (held out)' if row[2] else ''}", row[1], *row[3:])
            for row in listed.itertuples(index=False, name=None)
        ],
        right=("index",),
    )
    for row in range(min(sequences, len(batch))):
        say(_marked(corpus, batch.tokens[row].tolist(), batch.kind[row].tolist()), highlight=False)
    longest = corpus.form(form).longest
    note(
        f"The longest {form} has {longest} tokens (model.n_ctx has to be that or more), the vocabulary "
        f"{len(corpus.tokenizer):,}."
    )


def _show_attributes(corpus: "Corpus") -> None:
    population = corpus.population
    assert population.files is not None
    rows = []
    for index, (name, pool) in enumerate(population.lexicon.values.items()):
        lengths = [len(ids) for ids in corpus.value_tokens(name)]
        few, many = min(lengths), max(lengths)
        rows.append(
            (
                name.replace("_", " "), len(pool), int((population.values[:, index] < 0).sum()),
                f"{few}" if few == many else f"{few} to {many}",
                len(population.files.templates[name]),
            )
        )  # fmt: skip
    header = ("attribute", "values", "people without", "tokens of a value", "wordings")
    show(f"{len(rows)} attributes", header, rows, right=header[1:])


def _marked(corpus: "Corpus", ids: list[int], kinds: list[int]) -> str:
    """Tokens with a space between, what they are marked with brackets."""
    from interp.biographies import TokenKind

    marks = {TokenKind.NAME: "[]", TokenKind.TYPE: "<>", TokenKind.VALUE: "{}"}
    tokens = corpus.tokenizer.convert_ids_to_tokens(ids)
    told = [(kind, token) for kind, token in zip(kinds, tokens, strict=True) if kind]
    parts = []
    for kind, some in groupby(told, key=lambda one: one[0]):
        text = " ".join(token for _, token in some)
        mark = marks.get(TokenKind(kind), "")
        parts.append(f"{mark[:1]}{text}{mark[1:]}")
    return " ".join(parts)
