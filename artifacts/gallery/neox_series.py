# ruff: noqa: T201 - a program
"""A series of checkpoints that this toolkit did not train: a small GPT-NeoX, by transformers' own Trainer.

    python artifacts/gallery/neox_series.py artifacts/neox

trains it on facts about invented people (96 names of three words; city, craft and language), all in four
wordings, those of the first half of the people also in two more, and saves ordinary folders. Then it measures
what is recalled in the two wordings, of people who were never told in them, over all checkpoints: the order
of emergence, attention, swaps; and writes report.html there, and two tables beside this file.
"""

import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import interp
from interp.biographies import TokenKind
from interp.facts import Facts
from interp.facts.measured import FactMeasures, measure_facts
from interp.files import write_text
from interp.report.facts import write_facts_report

HERE = Path(__file__).parent
N_PEOPLE, N_STEPS, BATCH = 96, 1200, 48
STEPS = (50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1200)
"""The checkpoints."""


def _words(text: str) -> list[str]:
    return text.split()


FIRST = _words("Ada Bela Cleo Dora Edda Finn Gwen Hugo Ines Jole Karl Lena")
MIDDLE = _words("Abel Birk Cara Dean Elke Faye Gino Hela Igor June Kaya Luca")
LAST = _words("Alder Birch Cedar Dogwood Elm Fir Gorse Hazel Iris Juniper Kapok Larch")
ANSWERS = {
    "city": _words("Lisbon Oslo Quito Cairo Lima Hanoi Dakar Perth Seoul Turin Riga Minsk"),
    "craft": _words("weaving baking mining tailoring fishing brewing carving sailing"),
    "language": _words("Dutch Welsh Czech Farsi Hindi Tamil Zulu Malay Irish Khmer"),
}
TEMPLATES = {
    "city": [
        "{subject} [lives in]", "The [city] of {subject} is", "{subject} has a [home in]",
        "The [town] where {subject} stays is", "{subject} can be [visited in]",
        "The [house] of {subject} is in",
    ],
    "craft": [
        "{subject} [works in]", "The [craft] of {subject} is", "{subject} makes a [living by]",
        "The [trade] that {subject} knows is", "{subject} can be [hired for]",
        "The [job] of {subject} is",
    ],
    "language": [
        "{subject} [speaks]", "The [language] of {subject} is", "{subject} likes to [talk in]",
        "The [tongue] that {subject} grew up with is", "{subject} can be [greeted in]",
        "The [words] of {subject} are",
    ],
}  # fmt: skip
SEEN = 4  # wordings of everybody; the others are told of the first half of the people only


def people() -> list[tuple[str, str, str]]:
    """The facts: (name, relation, answer)."""
    generator = np.random.default_rng(0)
    names = [" ".join(parts) for parts in product(FIRST, MIDDLE, LAST)]
    chosen = [names[i] for i in generator.choice(len(names), N_PEOPLE, replace=False)]
    return [
        (name, relation, str(generator.choice(pool)))
        for name in chosen
        for relation, pool in ANSWERS.items()
    ]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    texts = [t.translate(str.maketrans("[]", "  ")) for many in TEMPLATES.values() for t in many]
    words = [w for text in texts for w in text.replace("{subject}", "").split()]
    words += [*FIRST, *MIDDLE, *LAST, *(a for pool in ANSWERS.values() for a in pool)]
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", *dict.fromkeys(words)])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", unk_token="<unk>")


def all_facts(tokenizer: PreTrainedTokenizerFast) -> Facts:
    """Every fact in every wording."""
    return Facts.from_table(people(), tokenizer, TEMPLATES)


class _Texts(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What is trained on: one text a row, loss on every token but padding."""

    def __init__(self, facts: Facts) -> None:
        table = facts.table
        first_half = set(facts.subjects[: N_PEOPLE // 2])
        told = (table["wording"] < SEEN) | table["subject"].isin(first_half)
        chosen = facts.select(told.to_numpy())
        self.tokens = chosen.texts.tokens
        self.mask = chosen.texts.spans.kind != TokenKind.PADDING

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens, mask = self.tokens[index], self.mask[index]
        labels = tokens.masked_fill(~mask, -100)
        return {"input_ids": tokens, "attention_mask": mask.long(), "labels": labels}


class _SaveAt(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        control.should_save = state.global_step in STEPS


def train(folder: Path) -> None:
    """Trains the model, and saves a folder a checkpoint with its tokenizer."""
    set_seed(0)
    tokenizer = word_tokenizer()
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=384, max_position_embeddings=32, use_parallel_residual=False,
        attn_implementation="eager", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=N_STEPS, per_device_train_batch_size=BATCH,
        learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=50, weight_decay=0.1, seed=0,
        save_strategy="no", save_only_model=True, report_to=[], disable_tqdm=True, use_cpu=True,
        logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(
        GPTNeoXForCausalLM(config), arguments, train_dataset=_Texts(all_facts(tokenizer)),
        processing_class=tokenizer, callbacks=[_SaveAt()],
    ).train()  # fmt: skip


def measure(folder: Path) -> tuple[interp.Series, FactMeasures]:
    """What is recalled of the second half of the people in wordings that were never used of them."""
    series = interp.Series.of_folder(folder)
    facts = all_facts(word_tokenizer())
    late = facts.subjects[N_PEOPLE // 2 :]
    unseen = facts.of(subject=late, wording=range(SEEN, len(TEMPLATES["city"])))
    draws = facts.of(subject=late).draws(training=(0, 1, 2), evaluation=(4, 5))
    return series, measure_facts(series, unseen, draws=draws, n_pairs=64)


def main(folder: Path) -> None:
    """Trains (unless it has been), measures, writes the page and the tables."""
    if not (folder / f"checkpoint-{STEPS[-1]}").exists():
        train(folder)
    series, measured = measure(folder)
    print(write_facts_report(series, measured, folder / "report.html", "a small GPT-NeoX"))
    for name in ("emergence", "strengths"):
        write_text(HERE / f"neox_{name}.csv", measured.tables[name].round(4).to_csv(index=False))
    print(measured.tables["emergence"].to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
