"""A fact in one wording as tokens of a model's own tokenizer, with what each token is."""

import re
import unicodedata
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from interp.biographies import Spans
from interp.errors import ArgumentError, short
from interp.facts.rows import ANSWER, SUBJECT, FactRow

_PARTS = re.compile(rf"({re.escape(SUBJECT)}|{re.escape(ANSWER)}|\[[^\[\]]*\])")
_Range = tuple[int, int]


@dataclass(frozen=True)
class FactTokens:
    """One text that tells a fact.

    Attributes:
        text: The text, with the answer.
        prompt: What of it stands before the answer.
        ids: Its token ids, with that of the beginning of a sequence if it has one.
        spans: What the tokens are: one sentence with the subject as name and the answer as value.
        subject: Where the subject's tokens are: the first, and the one after the last.
        answer: Where the answer's are.
    """

    text: str
    prompt: str
    ids: tuple[int, ...]
    spans: Spans
    subject: _Range
    answer: _Range


def tokenized(row: FactRow, tokenizer: PreTrainedTokenizerBase, *, bos: bool) -> FactTokens:
    """A fact's text as tokens.

    Raises:
        ArgumentError: the subject or the answer begins or ends in the middle of a token, or the prompt is cut
            into other tokens where the answer follows.
    """
    text, ranges = _written(row)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(encoded["input_ids"])
    offsets = [_without_spaces(text, *offset) for offset in encoded["offset_mapping"]]
    shift = int(bos)

    def places(of: _Range, what: str) -> _Range:
        inside = [
            index for index, (start, stop) in enumerate(offsets) if start < of[1] and stop > of[0]
        ]
        for index in inside:
            start, stop = offsets[index]
            if start < of[0] or stop > of[1]:
                raise ArgumentError(
                    f"{row.where}: the {what} {short(text[slice(*of)])} shares the token "
                    f"{short(text[start:stop])} with the words beside it, in {short(text, 80)}. Put a space "
                    "there, or word it otherwise."
                )
        if not inside:
            raise ArgumentError(
                f"{row.where}: the {what} {short(text[slice(*of)])} has no token of its own."
            )
        return inside[0] + shift, inside[-1] + 1 + shift

    subject, answer = places(ranges[SUBJECT], "subject"), places(ranges[ANSWER], "answer")
    while answer[0] - shift > 0 and len(set(offsets[answer[0] - shift - 1])) == 1:
        answer = (
            answer[0] - 1,
            answer[1],
        )  # white space that is a token by itself has to be predicted too
    prompt = text[: ranges[ANSWER][0]].rstrip()
    alone = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if alone != ids[: answer[0] - shift]:
        raise ArgumentError(
            f"{row.where}: {short(prompt, 80)} is cut into other tokens where {short(row.answer)} "
            "follows, so that a model that reads it alone would be asked something else. Let the answer "
            "begin with a new word."
        )
    marks = [range_ for mark, range_ in ranges.items() if mark not in (SUBJECT, ANSWER)]
    taken = {*range(*subject), *range(*answer)}
    relation = {
        index + shift
        for of in marks
        for index, (start, stop) in enumerate(offsets)
        if start < of[1] and stop > of[0]
    } - taken
    punctuation = (
        {
            index + shift
            for index, (start, stop) in enumerate(offsets)
            if start < stop and all(unicodedata.category(c)[0] == "P" for c in text[start:stop])
        }
        - taken
        - relation
    )
    spans = Spans.from_lists(
        len(ids) + shift,
        sentences=[(shift, len(ids) + shift)],
        names=[subject],
        values=[answer],
        types=[(index, index + 1) for index in sorted(relation)],
        punctuation=[(index, index + 1) for index in sorted(punctuation)],
    )
    start = [int(tokenizer.bos_token_id)] if bos else []
    return FactTokens(text, prompt, (*start, *ids), spans, subject, answer)


def _written(row: FactRow) -> tuple[str, dict[str, _Range]]:
    """The text of a fact, and where subject, answer and the words of the relation stand in it."""
    wording = row.wording if ANSWER in row.wording else f"{row.wording.rstrip()} {ANSWER}"
    text, ranges = "", {}
    for part in _PARTS.split(wording):
        written = {SUBJECT: row.subject, ANSWER: row.answer}.get(part, part)
        if written.startswith("[") and written.endswith("]") and part not in (SUBJECT, ANSWER):
            written = written[1:-1]
            part = f"words {len(text)}"
        if part in (SUBJECT, ANSWER) or part.startswith("words "):
            ranges[part] = (len(text), len(text) + len(written))
        text += written
    return text, ranges


def _without_spaces(text: str, start: int, stop: int) -> _Range:
    """A range of a text without the white space at its ends."""
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop
