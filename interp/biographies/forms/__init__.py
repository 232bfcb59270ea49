"""Forms of text: how one person becomes a sequence. A form is one class (`base`) and a line in `FORMS`."""

from collections.abc import Iterable

from interp.biographies.forms.base import Form, Individuals, PieceRow, Stock, Wordings
from interp.biographies.forms.phrases import Fused, Inverse, Mnemonic, Part, Polyglot
from interp.biographies.forms.sentences import (
    Biography,
    Question,
    ReorderedName,
    SentenceForm,
    Triple,
)
from interp.biographies.lexicon import Lexicon
from interp.errors import ConfigError, suggest

FORMS: dict[str, type[Form]] = {
    form.name: form
    for form in (
        Biography, Question, Inverse, Part, ReorderedName, Mnemonic, Fused, Polyglot, Triple,
    )
}  # fmt: skip
"""The forms by name; the place of one in this order is its number in `Batch.form`."""

BIOGRAPHY = "biography"


def form_class(name: str) -> type[Form]:
    """The form of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FORMS:
        raise ConfigError(
            f"There is no form {name!r}.{suggest(name, FORMS)} Forms: {', '.join(FORMS)}."
        )
    return FORMS[name]


def form_number(name: str) -> int:
    """The number of a form in `Batch.form`; a ConfigError as `form_class`."""
    return list(FORMS).index(form_class(name).name)


def form_texts(names: Iterable[str], lexicon: Lexicon, n_people: int) -> list[str]:
    """The texts that a tokenizer has to know for some forms, beside those of biographies."""
    return [text for name in names for text in form_class(name).texts(lexicon, n_people)]


__all__ = [
    "BIOGRAPHY",
    "FORMS",
    "Biography",
    "Form",
    "Fused",
    "Individuals",
    "Inverse",
    "Mnemonic",
    "Part",
    "PieceRow",
    "Polyglot",
    "Question",
    "ReorderedName",
    "SentenceForm",
    "Stock",
    "Triple",
    "Wordings",
    "form_class",
    "form_number",
    "form_texts",
]
