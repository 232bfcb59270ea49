"""Small tokenizers of the kinds that real models have."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.facts.capitals import CAPITALS, LANGUAGES, TEMPLATES

KINDS = ("byte-level", "metaspace")


def make_tokenizer(kind: str, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A BPE as GPT-2 has it, or as Llama 2; words of the capitals are cut into one to three tokens."""
    built = Tokenizer(models.BPE(unk_token="<unk>" if kind == "metaspace" else None))
    if kind == "byte-level":
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        built.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        built.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        )
        built.decoder = decoders.Metaspace()
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", "<s>", "<unk>"], initial_alphabet=alphabet
    )
    texts = [t.format(subject=s, answer="") for t in TEMPLATES["capital"] for s, _, _ in CAPITALS]
    built.train_from_iterator(
        [*texts, *(f" {a}" for _, _, a in [*CAPITALS, *LANGUAGES])] * 3, trainer
    )
    if bos:
        built.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return make_tokenizer(request.param)


@pytest.fixture(scope="session")
def with_bos() -> Callable[[str], PreTrainedTokenizerFast]:
    return lambda kind: make_tokenizer(kind, bos=True)
