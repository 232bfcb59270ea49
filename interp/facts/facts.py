"""Facts of common knowledge as what the measures read: texts, pairs, prompts, labels.

model = interp.load_model("weights/smollm2")
facts = interp.Facts.from_csv("capitals.csv", model.tokenizer)
facts.known(model)                                     # rank and probability of every answer
interp.patch(model, facts.pairs(), interp.Grid("resid_pre", "last subject token"))
interp.locate_fact(model, facts.prompt("France", "capital"))
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_protocol import TransformerLensModel
from transformers import PreTrainedTokenizerBase

from interp.biographies import Spans, Texts
from interp.errors import ArgumentError, listed, require_known, short, suggest, whole_number
from interp.facts.rows import FactRow, Templates, counterfact_rows, lre_rows, read_csv, rows_of
from interp.facts.tokens import FactTokens, tokenized
from interp.interventions import Pairs
from interp.memory.fact_prompt import FactPrompt
from interp.memory.facts import FactLabels, FactTexts
from interp.memory.measure import FactDraws
from interp.model import logits_at, measuring, require_room
from interp.model.layout import require_wrapped
from interp.pretrained import adds_bos
from interp.torch_state import default_state


class Facts:
    """Facts in one or more wordings each, as tokens of one tokenizer.

    A fact is a subject, a relation and the answer that is true; a wording makes it a text. Texts are one
    sentence: the subject is its name, the answer its value, words in [brackets] tell the relation. They are
    padded on the right, and begin with the tokenizer's beginning-of-sequence token if `bos` says so.
    Positions of such texts are called "subject", "last subject token", "relation", "predicts answer" and
    "answer", beside the names of `interp.biographies.POSITIONS`.

    Make them with `from_table`, `from_csv`, `of_counterfact` or `of_lre`.

    Attributes:
        tokenizer: Whose tokens they are: the model's own.
        bos: Whether texts begin with the beginning-of-sequence token.
    """

    def __init__(
        self, rows: Sequence[FactRow], tokenizer: PreTrainedTokenizerBase, bos: bool | None = None
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ArgumentError(
                f"A {type(tokenizer).__name__} does not say which characters a token stands for. Give a fast "
                "tokenizer of transformers, such as model.tokenizer."
            )
        own = adds_bos(tokenizer)
        if not isinstance(bos, bool | None):
            raise ArgumentError(
                f"bos={bos!r}: give True, False, or None for what the tokenizer does."
            )
        self.bos = own if bos is None else bos
        if self.bos and tokenizer.bos_token_id is None:
            raise ArgumentError("bos=True: this tokenizer has no beginning-of-sequence token.")
        self.tokenizer = tokenizer
        self._rows = list(rows)
        if not self._rows:
            raise ArgumentError("There are no facts; give at least one.")
        self._told = [tokenized(row, tokenizer, bos=self.bos) for row in self._rows]

    @classmethod
    def from_table(
        cls,
        facts: pd.DataFrame | Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
        templates: Templates | None = None,
        bos: bool | None = None,
    ) -> "Facts":
        """Facts of a frame with the columns `subject`, `relation`, `answer`, or a list of such triples.

        Args:
            facts: The facts. With a column `text` (or a fourth entry) each row is a fact in one wording:
                a text with its subject in it, once or marked as {subject}, that ends where the answer
                begins (or has {answer}).
            tokenizer: The model's own, a fast one.
            templates: Wordings by relation, for facts without texts; the same for each subject.
            bos: Whether texts begin with the beginning-of-sequence token; by default whether the tokenizer by
                itself puts one there.

        Raises:
            ArgumentError: a row is not as it should be; the message names it.

        Example:
            ```python
            triples = [("France", "capital", "Paris"), ("Japan", "capital", "Tokyo")]
            facts = interp.Facts.from_table(
                triples, model.tokenizer, {"capital": "The [capital] of {subject} is"}
            )
            ```
        """
        return cls(rows_of(facts, templates), tokenizer, bos)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        templates: Templates | None = None,
        bos: bool | None = None,
    ) -> "Facts":
        """Facts of a CSV in UTF-8 with a header; otherwise as `from_table`."""
        path = Path(path)
        rows = rows_of(read_csv(path), templates, f"{path.name}, row")
        return cls(rows, tokenizer, bos)

    @classmethod
    def of_counterfact(
        cls, path: str | Path, tokenizer: PreTrainedTokenizerBase, bos: bool | None = None
    ) -> "Facts":
        """The true facts of a CounterFact file (Meng et al. 2022), each in its prompt and paraphrases.

        A case whose fact an earlier case tells in the same words, or with another answer, is left out.
        """
        kept: dict[tuple[str, ...], dict[str, str]] = {}
        answers: dict[tuple[str, ...], str] = {}
        for one in counterfact_rows(Path(path)):
            fact = one["subject"], one["relation"]
            if answers.setdefault(fact, one["answer"]) == one["answer"]:
                kept[*fact, one["text"]] = one
        return cls(rows_of(list(kept.values()), None, "text"), tokenizer, bos)

    @classmethod
    def of_lre(
        cls,
        paths: str | Path | Sequence[str | Path],
        tokenizer: PreTrainedTokenizerBase,
        bos: bool | None = None,
    ) -> "Facts":
        """The facts of LRE relations (Hernandez et al. 2024), a JSON file each, in all their templates.

        A subject that has several answers in a file keeps the first.
        """
        files = [paths] if isinstance(paths, str | Path) else list(paths)
        kept: dict[tuple[str, ...], dict[str, str]] = {}
        answers: dict[tuple[str, ...], str] = {}
        for one in lre_rows(map(Path, files)):
            fact = one["subject"], one["relation"]
            if answers.setdefault(fact, one["answer"]) == one["answer"]:
                kept[*fact, one["text"]] = one
        return cls(rows_of(list(kept.values()), None, "text"), tokenizer, bos)

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._rows)

    def __repr__(self) -> str:
        n_facts = len({(row.subject, row.relation) for row in self._rows})
        start = "with" if self.bos else "without"
        return (
            f"Facts({n_facts} facts in {len(self)} texts, relations {', '.join(self.relations)}, {start} "
            "beginning-of-sequence token)"
        )

    @property
    def relations(self) -> list[str]:
        """The relations, in the order in which they first appear."""
        return list(dict.fromkeys(row.relation for row in self._rows))

    @property
    def subjects(self) -> list[str]:
        """The subjects, in the order in which they first appear."""
        return list(dict.fromkeys(row.subject for row in self._rows))

    @property
    def table(self) -> pd.DataFrame:
        """The texts: `subject`, `relation`, `answer`, `wording` (a number from 0), `prompt`, `n_tokens`."""
        rows = [
            (row.subject, row.relation, row.answer, row.number, told.prompt, len(told.ids))
            for row, told in zip(self._rows, self._told, strict=True)
        ]
        columns = ["subject", "relation", "answer", "wording", "prompt", "n_tokens"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    @default_state()
    def texts(self) -> Texts:
        """The texts with their answers, for measures that look for what predicts a value."""
        return _padded([(told.ids, told.spans) for told in self._told], self._pad)

    @cached_property
    @default_state()
    def prompts(self) -> Texts:
        """The texts up to where the answer is asked for; `read` says where that is."""
        return _padded([_cut(told) for told in self._told], self._pad)

    @property
    @default_state()
    def read(self) -> Int64[Tensor, " text"]:
        """The position of each text that predicts the answer's first token."""
        return torch.tensor([told.answer[0] - 1 for told in self._told])

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def select(self, chosen: Sequence[bool] | Sequence[int] | np.ndarray | pd.Series) -> "Facts":
        """Some of the texts: by a truth value for each, or by their numbers.

        Raises:
            ArgumentError: none is chosen, or a number is out of range.
        """
        given = np.atleast_1d(np.asarray(chosen))
        if given.dtype == bool and given.shape != (len(self),):
            raise ArgumentError(
                f"There are {given.size} truth values for {len(self)} texts; give one for each."
            )
        if given.dtype == bool and given.shape == (len(self),):
            numbers = np.flatnonzero(given).tolist()
        else:
            numbers = [whole_number(one, "a text", 0) for one in given.tolist()]
        if not numbers or max(numbers) >= len(self):
            wrong = f"there is no text {max(numbers)}" if numbers else "no text is chosen"
            raise ArgumentError(f"Of {len(self)} texts, {wrong}. Choose at least one of them.")
        rows = [self._rows[index] for index in numbers]
        return Facts(rows, self.tokenizer, self.bos)

    def with_answers(self, new: Mapping[tuple[str, str], str]) -> "Facts":
        """The same texts with other answers to some facts, by subject and relation.

        Raises:
            ArgumentError: there is no such fact, the answer is the old one, or none is named.
        """
        known = {(row.subject, row.relation): row.answer for row in self._rows}
        if not new:
            raise ArgumentError("There is no new answer; give at least one by (subject, relation).")
        for fact, answer in new.items():
            if fact not in known:
                raise ArgumentError(
                    f"There is no fact {fact!r} among these; give (subject, relation) as in facts.table."
                )
            if not isinstance(answer, str) or not answer.strip() or answer == known[fact]:
                raise ArgumentError(
                    f"{answer!r} is no new answer to {fact!r}, which is {known[fact]!r}; give another text."
                )
        rows = [
            replace(row, answer=new.get((row.subject, row.relation), row.answer))
            for row in self._rows
        ]
        return Facts(rows, self.tokenizer, self.bos)

    def of(
        self,
        relation: str | Sequence[str] | None = None,
        subject: str | Sequence[str] | None = None,
        wording: int | Sequence[int] | None = None,
    ) -> "Facts":
        """The texts of some relations, subjects and wordings; None: of all."""
        chosen = np.ones(len(self), dtype=bool)
        for name, given in (("relation", relation), ("subject", subject)):
            if given is not None:
                wanted, own = listed(given, name), [getattr(row, name) for row in self._rows]
                require_known(wanted, dict.fromkeys(own), name)
                chosen &= np.isin(own, wanted)
        if wording is not None:
            numbers = [wording] if isinstance(wording, int) else list(wording)
            chosen &= np.isin([row.number for row in self._rows], numbers)
        return self.select(chosen)

    @default_state()
    def known(self, model: TransformerLensModel, batch_size: int = 32) -> pd.DataFrame:
        """What a model knows of each text's answer.

        Returns:
            The columns of `table` up to `wording`, then `rank` of the answer's first token among all
            tokens (1: the model's guess), its `probability`, `answer_probability` (of all tokens of the
            answer, each given those before), and `correct` (each token of the answer is the model's guess).
        """
        require_wrapped(model)
        device = next(model.parameters()).device  # type: ignore[attr-defined]
        self._require_fit(model)
        size = whole_number(batch_size, "batch_size", 1)
        rows: list[tuple[int, float, float, bool]] = []
        with measuring(model):
            for start in range(0, len(self), size):
                rows += _answers(model, self._told[start : start + size], self._pad, device)
        columns = ["rank", "probability", "answer_probability", "correct"]
        found = pd.DataFrame(rows, columns=columns)
        return pd.concat([self.table.loc[:, :"wording"], found], axis=1)

    def those_known(self, model: TransformerLensModel, rank: int = 1) -> "Facts":
        """The texts whose answer's first token is among a model's first `rank` guesses.

        Raises:
            ArgumentError: there is none.
        """
        rank = whole_number(rank, "rank", 1)
        ranks = self.known(model)["rank"]
        if not (ranks <= rank).any():
            best = ranks.min()
            raise ArgumentError(
                f"The model knows none of these {len(self)} texts: the best rank of an answer is {best}, "
                f"asked for is {rank}. Look at facts.known(model); other wordings, a larger rank or another "
                "beginning (bos) may help."
            )
        return self.select((ranks <= rank).to_numpy())

    @default_state()
    def pairs(self, seed: int = 0) -> Pairs:
        """For every text a pair: the prompt, and the same words about another subject, drawn by `seed`.

        The other subject has another answer, whose first token differs: only there can a prediction follow.
        Subjects of unequal length correspond at their ends; tokens of the longer one that are left over
        correspond to nothing. Texts for which there is no such subject are left out, with a warning.

        Raises:
            ArgumentError: there is none at all.
        """
        generator = np.random.default_rng(whole_number(seed, "seed", 0))
        chosen: list[tuple[int, int]] = []
        for index in range(len(self)):
            partners = self._partners(index)
            if partners:
                chosen.append((index, int(generator.choice(partners))))
        left_out = len(self) - len(chosen)
        if left_out:
            said = (
                f"{left_out} of {len(self)} texts have no other subject in the same words whose answer "
                "begins with another token"
            )
            if not chosen:
                raise ArgumentError(
                    f"{said}, so there is nothing to swap. Give several subjects a relation and wording."
                )
            warnings.warn(f"{said}; they are left out of the pairs.", stacklevel=2)
        return self._paired(chosen)

    def _partners(self, index: int) -> list[int]:
        """The texts that differ in the subject alone, and whose answer begins with another token."""
        row, told = self._rows[index], self._told[index]
        alike = self._by_wording[row.relation, row.wording]
        return [
            other
            for other in alike
            if self._rows[other].subject != row.subject
            and self._first(other) != self._first(index)
            and self._told[other].subject[0] == told.subject[0]
            and _behind(self._told[other]) == _behind(told)
        ]

    @cached_property
    def _by_wording(self) -> dict[tuple[str, str], list[int]]:
        groups: dict[tuple[str, str], list[int]] = {}
        for index, row in enumerate(self._rows):
            groups.setdefault((row.relation, row.wording), []).append(index)
        return groups

    def _first(self, index: int) -> int:
        """The first token of a text's answer."""
        told = self._told[index]
        return told.ids[told.answer[0]]

    def _paired(self, chosen: Sequence[tuple[int, int]]) -> Pairs:
        bases, sources = zip(*chosen, strict=True)
        base, source = (
            _padded([_cut(self._told[index]) for index in side], self._pad)
            for side in (bases, sources)
        )
        width = base.tokens.shape[1]
        counterpart = torch.stack(
            [_counterparts(self._told[b], self._told[s], width) for b, s in chosen]
        )
        reads = [
            torch.tensor([self._told[i].answer[0] - 1 for i in side]) for side in (bases, sources)
        ]
        answers = [torch.tensor([self._first(i) for i in side]) for side in (bases, sources)]
        return Pairs(
            base.tokens, source.tokens, base.spans, source.spans, counterpart, *reads, *answers
        )

    @default_state()
    def prompt(self, subject: str, relation: str | None = None, wording: int = 0) -> FactPrompt:
        """One fact as a prompt, for `interp.locate_fact`; the other answers of its relation are rivals.

        Args:
            subject: The subject.
            relation: Its relation; may be left out where the subject has one.
            wording: Which of the fact's wordings.

        Raises:
            ArgumentError: there is no such fact or wording, or no other answer.
        """
        there = [i for i, row in enumerate(self._rows) if row.subject == subject]
        if not there:
            near = suggest(str(subject), self.subjects)
            raise ArgumentError(
                f"There is no subject {short(str(subject))}.{near} See facts.subjects."
            )
        of_subject = list(dict.fromkeys(self._rows[i].relation for i in there))
        if relation is None and len(of_subject) > 1:
            raise ArgumentError(
                f"Which relation of {short(subject)}? There are {', '.join(of_subject)}."
            )
        relation = of_subject[0] if relation is None else relation
        require_known([relation], of_subject, "relation")
        chosen = [
            i for i in there
            if self._rows[i].relation == relation and self._rows[i].number == wording
        ]  # fmt: skip
        if not chosen:
            n = sum(self._rows[i].relation == relation for i in there)
            raise ArgumentError(
                f"wording={wording}: the {relation} of {short(subject)} has {n}, from 0 to {n - 1}."
            )
        index = chosen[0]
        told, row = self._told[index], self._rows[index]
        rivals = {
            self._first(i) for i, other in enumerate(self._rows) if other.relation == relation
        }
        return FactPrompt.of_text(
            told.ids, told.spans, sorted(rivals), relation=relation, name=row.subject,
            value=row.answer, words=lambda token: str(self.tokenizer.decode([token])),
        )  # fmt: skip

    @default_state()
    def labels(self) -> FactLabels:
        """Which subject has which answer in each relation, subjects in the order of `subjects`.

        Raises:
            ArgumentError: a subject lacks a relation that another has.
        """
        answers: dict[str, list[tuple[int, ...]]] = {relation: [] for relation in self.relations}
        first = {(row.subject, row.relation): i for i, row in reversed(list(enumerate(self._rows)))}
        for subject in self.subjects:
            for relation, of_subjects in answers.items():
                if (subject, relation) not in first:
                    raise ArgumentError(
                        f"{short(subject)} has no {relation}, which others have. Probes, keys and "
                        "values need every relation of every subject; choose some with facts.of(relation)."
                    )
                told = self._told[first[subject, relation]]
                of_subjects.append(told.ids[slice(*told.answer)])
        return FactLabels.from_answers(answers)

    @default_state()
    def draws(
        self, training: Sequence[int] = (0, 1), evaluation: Sequence[int] = (2, 3)
    ) -> FactDraws:
        """The facts in some wordings for `interp.measure_memory`: probes learn from the first, the rest test.

        Every fact needs all of these wordings.

        Args:
            training: At least two wordings, by their numbers, from which probes learn.
            evaluation: At least two others.

        Raises:
            ArgumentError: as `labels`, a wording is missing or in both, or fewer than two.
        """
        training, evaluation = (
            [whole_number(one, "a wording", 0) for one in np.atleast_1d(np.asarray(side)).tolist()]
            for side in (training, evaluation)
        )
        both = set(training) & set(evaluation)
        if both or min(len(training), len(evaluation)) < 2:
            raise ArgumentError(
                f"training={list(training)}, evaluation={list(evaluation)}: give two or more wordings each"
                + (f"; {min(both)} is in both." if both else ".")
            )
        labels = self.labels()
        sides = [[self._told_in(number) for number in side] for side in (training, evaluation)]
        return FactDraws(labels, *sides)

    def _told_in(self, wording: int) -> FactTexts:
        """All facts in one wording."""
        at = {(row.subject, row.relation, row.number): i for i, row in enumerate(self._rows)}
        rows = []
        for subject in self.subjects:
            for relation in self.relations:
                if (subject, relation, wording) not in at:
                    raise ArgumentError(
                        f"The {relation} of {short(subject)} has no wording {wording}. Give every fact "
                        "as many texts, or other numbers of wordings."
                    )
                rows.append(at[subject, relation, wording])
        chosen = self.select(rows)
        shape = len(self.subjects), len(self.relations)
        return FactTexts(
            chosen.texts,
            torch.arange(shape[0]),
            torch.arange(len(rows)).view(shape),
            torch.zeros(shape, dtype=torch.int64),
            torch.full(shape, wording),
        )

    def _require_fit(self, model: TransformerLensModel) -> None:
        """Checks that a model can read the texts."""
        longest = max(len(told.ids) for told in self._told)
        highest = max(max(told.ids) for told in self._told)
        remedy = "Make them with the model's own tokenizer: Facts.from_table(..., model.tokenizer)."
        require_room(model, longest, highest, "The texts", remedy)


def _cut(told: FactTokens) -> tuple[tuple[int, ...], Spans]:
    """A text up to where its answer is asked for."""
    n = told.answer[0]
    return told.ids[:n], Spans(told.spans.kind[:, :n], told.spans.sentence[:, :n])


def _behind(told: FactTokens) -> int:
    """How many tokens there are between the subject and the answer."""
    return told.answer[0] - told.subject[1]


def _counterparts(base: FactTokens, source: FactTokens, width: int) -> Int64[Tensor, " position"]:
    """For each position of the base that of the source, -1 for none."""
    found = torch.full((width,), -1)
    start, stop = base.subject
    found[:start] = torch.arange(start)
    shared = min(stop - start, source.subject[1] - source.subject[0])
    found[stop - shared : stop] = torch.arange(source.subject[1] - shared, source.subject[1])
    found[stop : base.answer[0]] = torch.arange(source.subject[1], source.answer[0])
    return found


def _padded(parts: Sequence[tuple[Sequence[int], Spans]], pad: int) -> Texts:
    ids = [torch.tensor(one, dtype=torch.int64) for one, _ in parts]
    tokens = pad_sequence(ids, batch_first=True, padding_value=pad)
    return Texts(tokens, Spans.stack([spans for _, spans in parts]))


def _answers(
    model: TransformerLensModel, texts: Sequence[FactTokens], pad: int, device: torch.device
) -> list[tuple[int, float, float, bool]]:
    """Of each text's answer: rank and probability of its first token, probability of all, whether guessed."""
    lengths = [told.answer[1] - told.answer[0] for told in texts]
    row = torch.arange(len(texts)).repeat_interleave(torch.tensor(lengths))
    position = torch.cat([torch.arange(told.answer[0] - 1, told.answer[1] - 1) for told in texts])
    target = torch.cat([torch.tensor(told.ids[slice(*told.answer)]) for told in texts])
    ids = [torch.tensor(told.ids[: told.answer[1] - 1], dtype=torch.int64) for told in texts]
    tokens = pad_sequence(ids, batch_first=True, padding_value=pad).to(device)
    logits = logits_at(model, tokens, row.to(device), position.to(device)).cpu().double()
    if not logits.isfinite().all():
        raise ArgumentError(
            "The model gives logits that are no numbers; its weights may be damaged."
        )
    own = logits.gather(1, target[:, None])
    ranks = (logits > own).sum(1) + 1
    log_p = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    found = []
    for rank, part in zip(ranks.split(lengths), log_p.split(lengths), strict=True):
        one = int(rank[0]), float(part[0].exp()), float(part.sum().exp()), bool((rank == 1).all())
        found.append(one)
    return found
