"""Texts as the attention view shows them: tokens as words, what each is, and which facts are in them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.biographies import AnyTexts, Spans, TokenKind, spans_of
from interp.errors import ArgumentError
from interp.torch_state import default_state

Vocabulary = PreTrainedTokenizerBase | Sequence[str]
"""What tells the words of token ids: a tokenizer, or the words in the order of their ids."""

_CONTINUATION = "##"  # how WordPiece marks a token inside a word


@dataclass(frozen=True)
class Fact:
    """A value that the model is to recall.

    Attributes:
        relation: What of its subject the value is, e.g. "capital".
        value: The value.
        position: The position that predicts its first token.
        length: Its tokens.
    """

    relation: str
    value: str
    position: int
    length: int


@dataclass(frozen=True)
class MapText:
    """One text as the view shows it. `label_texts` and `map_text` make them.

    Attributes:
        number: By which the view asks for it; of a biography, the individual.
        name: What it is called: the full name of whom it is about, or a title.
        ids: Its token ids.
        spans: What its tokens are: spans of a batch of one, without padding.
        tokens: Its tokens as words.
        parts: Of each token, which part it is of a name or value; empty where there is nothing to say.
        facts: The facts in it, in their order.
        held_out: Whether training never showed what it is about.
        wordings: Of a biography, "evaluation" or "train"; None for other texts.

    Raises:
        ArgumentError: ids, spans, tokens and parts differ in length, or a fact lies outside.
    """

    number: int
    name: str
    ids: Int64[Tensor, " position"]
    spans: Spans
    tokens: tuple[str, ...]
    parts: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    held_out: bool = False
    wordings: str | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if tuple(self.spans.kind.shape) != (1, n) or {len(self.tokens), len(self.parts)} != {n}:
            raise ArgumentError(
                f"The text {self.name!r} has {n} token ids, spans of the shape "
                f"{tuple(self.spans.kind.shape)}, {len(self.tokens)} tokens and {len(self.parts)} parts; "
                f"it needs one of each per token (spans: [1, {n}])."
            )
        for fact in self.facts:
            if not 0 <= fact.position < fact.position + fact.length < n:
                raise ArgumentError(
                    f"The fact {fact.relation!r} of the text {self.name!r} has its value at "
                    f"{fact.position + 1} to {fact.position + fact.length}, outside of the text's "
                    f"positions, 1 to {n - 1}."
                )

    def __len__(self) -> int:
        return len(self.tokens)


@default_state()
def label_texts(
    texts: AnyTexts,
    vocabulary: Vocabulary,
    *,
    names: Sequence[str] | None = None,
    relations: Sequence[Sequence[str]] | None = None,
) -> list[MapText]:
    """Texts with the words that the attention view shows.

    Args:
        texts: Token ids with their spans.
        vocabulary: A tokenizer, or the words in the order of their ids.
        names: What the texts are called; by default, each by the first name in it.
        relations: Of each text, the relation of each of its values, in their order; by default the type
            words of the value's sentence, or "value 1", "value 2" where it has none.

    Returns:
        One a text, numbered from 0 on.

    Raises:
        ArgumentError: names or relations do not fit the texts, a token id has no word, or a text is empty.

    Example:
        ```python
        spans = Spans.from_lists(6, sentences=[(1, 6)], names=[(1, 3)], values=[(5, 6)])
        texts = label_texts(Texts(torch.tensor([[0, 17, 4, 9, 12, 33]]), spans), model.tokenizer)
        ```
    """
    spans = spans_of(texts).to("cpu")
    lengths = (spans.kind != TokenKind.PADDING).sum(dim=1).tolist()
    _require_one_each("name", names, len(lengths))
    _require_one_each("list of relations", relations, len(lengths))
    if 0 in lengths:
        raise ArgumentError(f"Text {lengths.index(0)} is empty: it is padding alone. Leave it out.")
    labelled = []
    for number, length in enumerate(lengths):
        ids = texts.tokens[number, :length].cpu()
        own = Spans(spans.kind[[number], :length], spans.sentence[[number], :length])
        tokens = _words_of_text(vocabulary, ids.tolist(), number)
        name = names[number] if names else _first_name(own, tokens) or f"text {number}"
        facts = _facts(own, tokens, number, None if relations is None else relations[number])
        labelled.append(MapText(number, name, ids, own, tokens, _parts(own), facts))
    return labelled if names is not None else _distinct(labelled)


def words_by_id(vocabulary: Vocabulary, ids: Sequence[int]) -> list[str]:
    """Token ids as words; "#17" for an id that has no word, as models with a padded vocabulary have."""
    if not isinstance(vocabulary, PreTrainedTokenizerBase):
        return [vocabulary[i] if i < len(vocabulary) else f"#{i}" for i in ids]
    tokens = zip(vocabulary.convert_ids_to_tokens(list(ids)), ids, strict=True)
    return [f"#{i}" if token is None else _readable(vocabulary, token, i) for token, i in tokens]


def _readable(tokenizer: PreTrainedTokenizerBase, token: str, index: int) -> str:
    # Byte-level tokenizers write a space as "Ġ", and every byte of an "é" as a letter of its own.
    if token.isascii():
        return token
    text = str(tokenizer.decode([index]))
    return text if text.strip() else (repr(text)[1:-1].strip() or "␣")


def _words_of_text(vocabulary: Vocabulary, ids: Sequence[int], number: int) -> tuple[str, ...]:
    if not isinstance(vocabulary, PreTrainedTokenizerBase):
        if isinstance(vocabulary, str):
            raise ArgumentError(
                "The vocabulary is one text; give a tokenizer, or a list of words in the order of their ids."
            )
        wrong = [index for index in ids if not 0 <= index < len(vocabulary)]
        if wrong:
            raise ArgumentError(
                f"Token id {wrong[0]} of text {number} has no word: the vocabulary has "
                f"{len(vocabulary):,} words, ids 0 to {len(vocabulary) - 1:,}. Give the words of all ids, in "
                "their order, or the tokenizer."
            )
    return tuple(words_by_id(vocabulary, ids))


def _require_one_each(what: str, given: Sequence[object] | None, n_texts: int) -> None:
    if given is not None and (isinstance(given, str) or len(given) != n_texts):
        n_given = 1 if isinstance(given, str) else len(given)
        raise ArgumentError(
            f"{n_given} {what}{'s' if n_given != 1 and what == 'name' else ''} for {n_texts} texts; give "
            f"one {what} per text, in their order."
        )


def _places(spans: Spans, kind: TokenKind) -> list[list[int]]:
    """The tokens of a kind, sentence by sentence."""
    of_kind, sentence = spans.kind[0] == kind, spans.sentence[0]
    n = int(sentence.max()) + 1 if sentence.numel() else 0
    return [torch.nonzero(of_kind & (sentence == index))[:, 0].tolist() for index in range(n)]


def _first_name(spans: Spans, tokens: Sequence[str]) -> str:
    names = filter(None, _places(spans, TokenKind.NAME))
    return _joined(tokens, next(names, []))


def _distinct(texts: list[MapText]) -> list[MapText]:
    """Texts about the same subject get their number behind the name."""
    count = Counter(text.name for text in texts)
    return [
        replace(text, name=f"{text.name} (text {text.number})") if count[text.name] > 1 else text
        for text in texts
    ]


def _facts(
    spans: Spans, tokens: Sequence[str], number: int, relations: Sequence[str] | None
) -> tuple[Fact, ...]:
    """The values of a text, in their order. A value that begins a text is predicted nowhere."""
    sentences = zip(_places(spans, TokenKind.VALUE), _places(spans, TokenKind.TYPE), strict=True)
    predicted = sorted(pair for pair in sentences if pair[0] and pair[0][0] > 0)
    if relations is None:
        relations = [
            _joined(tokens, types) if types else f"value {index}"
            for index, (_, types) in enumerate(predicted, 1)
        ]
    if isinstance(relations, str) or len(relations) != len(predicted):
        raise ArgumentError(
            f"Text {number} has {len(predicted)} values, but its relations are {relations!r}; give a list "
            "with one relation per value, in the order of the text."
        )
    return tuple(
        Fact(relation, _joined(tokens, places), places[0] - 1, len(places))
        for relation, (places, _) in zip(relations, predicted, strict=True)
    )


def _parts(spans: Spans) -> tuple[str, ...]:
    parts = [""] * spans.kind.shape[1]
    for name in _places(spans, TokenKind.NAME):
        for index, place in enumerate(name if len(name) > 1 else []):
            parts[place] = f"name, token {index + 1} of {len(name)}"
    for value in _places(spans, TokenKind.VALUE):
        for index, place in enumerate(value):
            parts[place] = value_part(index)
    return tuple(parts)


def value_part(index: int) -> str:
    """How the view calls a value's token: the first is what a fact is measured by, later ones follow."""
    return "first token" if index == 0 else "later token"


def _joined(tokens: Sequence[str], places: Sequence[int]) -> str:
    """Tokens as one text: with the spaces that they bring, or else one between words."""
    chosen = [tokens[place] for place in places]
    if any(token.startswith(" ") for token in tokens):
        return "".join(chosen).strip()
    return " ".join(chosen).replace(f" {_CONTINUATION}", "")
