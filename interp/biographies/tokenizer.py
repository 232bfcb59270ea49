"""Text to tokens and back: a `transformers` fast tokenizer over the population's own vocabulary.

Text is cut at spaces, and punctuation and the possessive 's stand alone, so that the tokens of a
name or a value hold nothing else ("1990." is [1990][.]). The vocabulary holds just the words that
the pools in use and the templates need.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from interp.biographies.lexicon import Lexicon
from interp.config import TokenizerConfig
from interp.errors import RunError, short
from interp.files import storage_errors, write_bytes
from interp.reading import DamageError, MissingError, require_file

PAD, BOS, UNK = "<pad>", "<bos>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, UNK)
PUNCTUATION = frozenset(".,:;?")

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",
)  # fmt: skip
"""The files of a folder that a tokenizer is read from; versions of transformers write some of them."""

_CONTINUATION = "##"  # marks a subword that continues a word
_ISOLATED = r"'s(?!\w)|[.,:;]"
_WITH_QUESTIONS = (
    r"'s(?!\w)|[.,:;?]"  # where there are any, so that other tokenizers keep their bytes
)


def words(text: str) -> list[str]:
    """The words of a text as the tokenizer cuts it; punctuation and 's are words of their own."""
    return re.sub(rf"({_WITH_QUESTIONS})", r" \1 ", text).split()


def set_words(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts, in order of first appearance."""
    return list(dict.fromkeys(word for text in texts for word in words(text)))


def vocabulary(lexicon: Lexicon, more: Iterable[str] = ()) -> list[str]:
    """The words that the texts of a lexicon need, and more texts; special tokens first, in a fixed order."""
    return [*SPECIAL_TOKENS, *set_words(chain(lexicon.texts(), more))]


def build_tokenizer(
    lexicon: Lexicon, config: TokenizerConfig, more: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """The tokenizer of a population's texts; it puts `<bos>` in front of every text.

    Args:
        lexicon: The names, values and wordings of the population (`Population.lexicon`).
        config: Words or subwords.
        more: Texts beside biographies whose words it has to know.
    """
    texts = [*lexicon.texts(), *more]
    isolated = _WITH_QUESTIONS if any("?" in text for text in texts) else _ISOLATED
    if config.kind == "word":
        words_by_id = vocabulary(lexicon, more)
        model = models.WordLevel({word: i for i, word in enumerate(words_by_id)}, unk_token=UNK)
        tokenizer = Tokenizer(model)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNK, continuing_subword_prefix=_CONTINUATION))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(isolated), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUATION, cleanup=True)
    if config.kind == "bpe":
        # The trainer numbers the letters inside words in an order that changes from call to call, and
        # merges with them; named in advance they have a fixed order.
        letters = {letter for word in set_words(texts) for letter in word[1:]}
        continuations = [_CONTINUATION + letter for letter in sorted(letters)]
        trainer = trainers.BpeTrainer(
            vocab_size=config.bpe_vocabulary,
            special_tokens=[*SPECIAL_TOKENS, *continuations],
            continuing_subword_prefix=_CONTINUATION,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        # As special tokens they would match in the middle of any text; from here on they are not.
        trained = json.loads(tokenizer.to_str())
        added = trained["added_tokens"]
        trained["added_tokens"] = [t for t in added if t["content"] in SPECIAL_TOKENS]
        tokenizer = Tokenizer.from_str(json.dumps(trained))
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return _adds_bos(PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=BOS, unk_token=UNK,
        padding_side="right", clean_up_tokenization_spaces=False, name_or_path="",
    ))  # fmt: skip


def _adds_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Notes on a tokenizer that it adds `<bos>`.

    TransformerLens loads a tokenizer without that note again, from the folder or hub it came from.
    """
    tokenizer.init_kwargs["add_bos_token"] = True
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a tokenizer's files into a folder, each atomically, `tokenizer.json` last."""
    with storage_errors(folder), tempfile.TemporaryDirectory() as elsewhere:
        tokenizer.save_pretrained(elsewhere)
        for path in sorted(Path(elsewhere).iterdir(), key=lambda p: p.name == "tokenizer.json"):
            write_bytes(folder / path.name, path.read_bytes())


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Reads a tokenizer that `save_pretrained` wrote into a folder.

    Raises:
        RunError: the folder holds no tokenizer, or a damaged one.
    """
    try:
        for name in TOKENIZER_FILES:
            if os.path.lexists(folder / name) or name == "tokenizer.json":
                require_file(folder / name)
        tokenizer = _adds_bos(PreTrainedTokenizerFast.from_pretrained(folder))
        if not tokenizer.get_vocab():
            raise DamageError("its vocabulary is empty")
    except MissingError:
        raise RunError(
            f"{folder} holds no tokenizer (tokenizer.json is missing). Run the command that made it "
            "again."
        ) from None
    except Exception as error:  # the library raises a bare Exception for a damaged tokenizer.json
        reason = short(" ".join(str(error).split()), 160)[1:-1]
        raise RunError(
            f"The tokenizer in {folder} cannot be read ({reason}). Delete that folder and run the "
            "command that made it again."
        ) from error
    return tokenizer


def encode_words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens; each distinct word is encoded once."""
    texts = list(texts)
    distinct = set_words(texts)
    if not distinct:
        return [[] for _ in texts]
    ids = tokenizer(distinct, add_special_tokens=False)["input_ids"]
    by_word = dict(zip(distinct, ids, strict=True))
    return [[token for word in words(text) for token in by_word[word]] for text in texts]
