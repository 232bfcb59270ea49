"""What is to be written: new facts, the texts that tell them, and what is to stay as it is.

ROME and MEMIT call these *requested rewrites*. A subject has one key and one value vector, so all new
facts of a subject are written together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.biographies import POSITIONS, Corpus, Spans, Texts, TokenKind, position_masks
from interp.config import ContradictionConfig
from interp.errors import ArgumentError, listed, require_known, short, suggest, whole_number
from interp.facts import Facts
from interp.torch_state import default_state

NewFact = tuple[SupportsIndex | str, str, str]
"""A person (index or name), an attribute, and the new value."""
_BACKGROUND_DRAW, _REWRITE_DRAW = 1000, 2000  # apart from those that measures draw
_NAMES = frozenset(
    {"first name", "middle name", "last name", "name", "subject", "last subject token"}
)
"""Positions of a subject's name: weights are changed at each of its mentions, so what is added is too."""
_PREDICTING = frozenset({"predicts value", "predicts answer"})


@dataclass(frozen=True)
class Rewrite:
    """One new fact.

    Attributes:
        subject: Whom it is about.
        relation: The attribute or relation.
        value: The new value.
        before: The value until now; None where there was none.
        individual: The person's index, of a corpus.
    """

    subject: str
    relation: str
    value: str
    before: str | None = None
    individual: int | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """Where something is written: each place has a key and a value vector of its own.

    Attributes:
        of_token: The number of the place that each token is a mention of, -1 for none. Places of a subject
            come together, in the order of subjects.
        subject: The subject of each place.
    """

    of_token: Int64[Tensor, "text position"]
    subject: Int64[Tensor, " place"]

    def of_subjects(self, chosen: Sequence[int]) -> list[int]:
        """The places of some subjects, subject by subject."""
        return [n for one in chosen for n in (self.subject == one).nonzero()[:, 0].tolist()]


@dataclass(frozen=True, eq=False)
class Rewrites:
    """New facts in texts.

    Attributes:
        facts: The new facts.
        texts: Texts about their subjects, with the new values in them.
        subject: Which subject each text is about, counted from 0 in the order of `subjects`.
        wanted: For each token the number of the new fact whose value it is part of, else -1.
        kept: Tokens whose prediction is to stay what it was (the subject's other facts).
        background: Ordinary text of the model, for the second moment of keys.
    """

    facts: tuple[Rewrite, ...]
    texts: Texts
    subject: Int64[Tensor, " text"]
    wanted: Int64[Tensor, "text position"]
    kept: Bool[Tensor, "text position"]
    background: Texts

    @property
    def subjects(self) -> list[str]:
        """The subjects, in the order in which the facts first name them."""
        return list(dict.fromkeys(fact.subject for fact in self.facts))

    @property
    def subject_of(self) -> list[int]:
        """The number of each fact's subject."""
        number = {name: index for index, name in enumerate(self.subjects)}
        return [number[fact.subject] for fact in self.facts]

    def __len__(self) -> int:
        return len(self.facts)

    def of_subjects(self, chosen: Sequence[int]) -> "Rewrites":
        """The new facts of some subjects only, in this order."""
        names = self.subjects
        keep = [i for s in chosen for i, of in enumerate(self.subject_of) if of == s]
        place = torch.full((len(self.facts) + 1,), -1)
        place[torch.tensor(keep)] = torch.arange(len(keep))
        wanted = {names[s]: n for n, s in enumerate(chosen)}
        rows = torch.cat([(self.subject == s).nonzero()[:, 0] for s in chosen])
        numbers = torch.full((len(names),), -1)
        numbers[torch.tensor([*chosen])] = torch.arange(len(wanted))
        spans = self.texts.spans
        texts = Texts(self.texts.tokens[rows], Spans(spans.kind[rows], spans.sentence[rows]))
        return replace(
            self, facts=tuple(self.facts[i] for i in keep), texts=texts,
            subject=numbers[self.subject[rows]], wanted=place[self.wanted[rows]], kept=self.kept[rows],
        )  # fmt: skip

    @default_state()
    def places(self, positions: str | Sequence[str]) -> "Places":
        """Where something is written, at one position kind or several.

        Of a name: a place for each subject and kind, in every mention. "predicts value": one for each token
        of each new value. Of any other kind, for each subject, where a new value is asked for.

        Raises:
            ArgumentError: there is no such kind, texts have no such token, several in one sentence, or one
                that is of two kinds.
        """
        asked = listed(positions, "position")
        require_known(asked or [""], POSITIONS, "position")
        code, most = torch.full(self.wanted.shape, -1), self.wanted.shape[1] * len(self.facts)
        for kind, position in enumerate(asked):
            mask, within = self._tokens(position)
            self._require_places(mask, position)
            if bool((mask & (code >= 0)).any()):
                raise ArgumentError(
                    f"The position {position!r} shares a token with another of {list(asked)}; leave one out."
                )
            own = (self.subject[:, None] * len(asked) + kind) * most + within
            code = code.where(~mask, own)
        found, number = code[code >= 0].unique(return_inverse=True)
        of_token = torch.full_like(code, -1)
        of_token[code >= 0] = number
        return Places(of_token, found // most // len(asked))

    @default_state()
    def kept_at(self, positions: str | Sequence[str]) -> Int64[Tensor, "text position"]:
        """Where outputs are to stay: at a token that predicts one to be kept, its subject; else -1.

        Only where new values, too, are written where they are predicted: elsewhere there is no token.
        """
        if not _PREDICTING & set(listed(positions, "position")):
            return torch.full(self.wanted.shape, -1)
        predicts = F.pad(self.kept[:, 1:], (0, 1))
        return self.subject[:, None].expand(self.kept.shape).where(predicts, -1)

    def _tokens(self, position: str) -> tuple[Bool[Tensor, "text position"], Tensor]:
        """The tokens of a position kind, and which place of its subject's each is."""
        spans, one = self.texts.spans, torch.zeros_like(self.wanted)
        if position in _NAMES:
            # Without a position that is read every sentence is its own: all mentions.
            return position_masks(spans, position)[position], one
        is_new = self.wanted >= 0
        if position in _PREDICTING:
            width = self.wanted.shape[1]
            begins = is_new & (self.wanted != F.pad(self.wanted[:, :-1], (1, 0), value=-1))
            at = torch.arange(width).expand_as(one)
            start = at.where(begins, 0).cummax(dim=1).values
            label = self.wanted * width + at - start
            return F.pad(is_new[:, 1:], (0, 1)), F.pad(label[:, 1:], (0, 1))
        begins = is_new.clone()
        begins[:, 1:] &= self.wanted[:, 1:] != self.wanted[:, :-1]
        row, first = begins.nonzero(as_tuple=True)
        there = Spans(spans.kind[row], spans.sentence[row])
        of_each = position_masks(there, position, first - 1)[position]
        return one.index_add(0, row, of_each.long()) > 0, one

    def _require_places(self, found: Bool[Tensor, "text position"], position: str) -> None:
        asking = (self.wanted >= 0).any(dim=1)
        if not bool(found[asking].any(dim=1).all()):
            raise ArgumentError(
                f"A text has no token of the position {position!r}, so nothing can be written there. Choose "
                "another, such as 'last name' (of facts, 'last subject token')."
            )
        row, at = found.nonzero(as_tuple=True)
        sentence = self.texts.spans.sentence[row, at].long()
        pairs = torch.stack([row, sentence], dim=1)
        if len(pairs.unique(dim=0)) < len(pairs) and position in _NAMES:
            raise ArgumentError(
                f"The position {position!r} is several tokens in a sentence, and a key is the input at one. "
                "Choose one such as 'last name' (of facts, 'last subject token')."
            )

    @classmethod
    @default_state()
    def of_people(
        cls,
        corpus: Corpus,
        facts: Iterable[NewFact],
        *,
        n_texts: int = 8,
        n_background: int = 1024,
    ) -> "Rewrites":
        """New facts of people, told in biographies in training wordings.

        The other five facts of a biography are what is to stay.

        Args:
            corpus: The people.
            facts: Person, attribute, new value.
            n_texts: Biographies of each person.
            n_background: Biographies of people in training, as they were.

        Raises:
            ArgumentError: nobody or no attribute of that name, a value that the tokenizer's lists do not
                have or that the person has already, or one fact twice.
            RunError: nobody has that name, or several people have.
        """
        n_texts = whole_number(n_texts, "n_texts", 1)
        chosen = _facts_of_people(corpus, facts)
        people = list(
            dict.fromkeys(fact.individual for fact in chosen if fact.individual is not None)
        )
        about = np.repeat(np.array(people), n_texts)
        batch = rewritten(corpus, chosen).biographies(about, "train", _REWRITE_DRAW)
        number = np.full((len(people), len(corpus.attributes)), -1)
        for index, fact in enumerate(chosen):
            place = people.index(fact.individual or 0), corpus.attributes.index(fact.relation)
            number[place] = index
        subject = torch.arange(len(people)).repeat_interleave(n_texts)
        is_value = batch.kind == TokenKind.VALUE
        attribute = batch.attribute.long().clamp(min=0)
        wanted = torch.from_numpy(number)[subject[:, None], attribute].where(is_value, -1)
        trained = np.arange(len(corpus.population))[corpus.population.trained]
        ordinary = corpus.biographies(
            np.resize(trained, whole_number(n_background, "n_background", 1)),
            "train",
            _BACKGROUND_DRAW,
        )
        return cls(
            tuple(chosen), Texts(batch.tokens, Spans.of(batch)), subject, wanted,
            is_value & (wanted < 0), Texts(ordinary.tokens, Spans.of(ordinary)),
        )  # fmt: skip

    @classmethod
    @default_state()
    def of_facts(
        cls,
        facts: Facts,
        new: Mapping[tuple[str, str], str],
        *,
        essence: str | None = "{subject} is a",
    ) -> "Rewrites":
        """New answers to facts of common knowledge, told in all wordings of the facts.

        What is to stay are the subject's other relations, and what the model says after `essence` (as in
        ROME). The background is the facts' texts; give `write_facts` more text for a real model.

        Args:
            facts: The facts as they are.
            new: The new answer, by subject and relation.
            essence: A text with {subject}; None for none.

        Raises:
            ArgumentError: there is no such fact, the answer is the old one, or none is named.
        """
        told, labels = facts.with_answers(new), []
        table = facts.table
        for (subject, relation), value in new.items():
            own = table[(table["subject"] == subject) & (table["relation"] == relation)]
            labels.append(Rewrite(subject, relation, value, str(own["answer"].iloc[0])))
        names = list(dict.fromkeys(fact.subject for fact in labels))
        told = told.select([name in names for name in table["subject"]])
        texts, rows = told.texts, told.table
        number = {(fact.subject, fact.relation): i for i, fact in enumerate(labels)}
        of_row = [
            number.get(key, -1) for key in zip(rows["subject"], rows["relation"], strict=True)
        ]
        is_value = texts.spans.is_kind(TokenKind.VALUE)
        wanted = torch.tensor(of_row)[:, None].where(is_value, -1)
        kept = is_value & (wanted < 0)
        about = [names.index(name) for name in rows["subject"]]
        if essence is not None:
            answers = {fact.subject: fact.value for fact in labels}
            more = Facts.from_table(
                [(name, "essence", answers[name], essence) for name in names],
                facts.tokenizer,
                bos=facts.bos,
            )
            texts, wanted, kept = _with_essence(texts, wanted, kept, more)
            about += range(len(names))
        return cls(tuple(labels), texts, torch.tensor(about), wanted, kept, facts.texts)


def rewritten(corpus: Corpus, facts: Iterable[Rewrite]) -> Corpus:
    """The corpus in which these facts hold: the same people, wordings and draws, with new values."""
    people = corpus.population
    values = people.values.copy()
    for fact in facts:
        pool = people.lexicon.values[fact.relation]
        values[fact.individual, corpus.attributes.index(fact.relation)] = list(pool).index(
            fact.value
        )
    data = corpus.data.model_copy(update={"contradictions": ContradictionConfig()})
    changed = replace(people, values=values)
    return Corpus(changed, corpus.tokenizer, corpus.sampler, corpus.seed, corpus.finetuned, data)


def _facts_of_people(corpus: Corpus, facts: Iterable[NewFact]) -> list[Rewrite]:
    people, found = corpus.population, []
    seen: set[tuple[int, str]] = set()
    for given in facts:
        if not isinstance(given, tuple | list) or len(given) != 3:
            raise ArgumentError(f"{given!r} is no new fact; give (person, attribute, new value).")
        person, relation, value = given
        individual = people.individual(person)
        attribute = "_".join(relation.casefold().replace("-", " ").replace("_", " ").split())
        require_known([attribute], corpus.attributes, "attribute")
        pool = {one.casefold(): one for one in people.lexicon.values[attribute]}
        new = pool.get(" ".join(str(value).split()).casefold())
        if new is None:
            near = suggest(str(value), people.lexicon.values[attribute])
            raise ArgumentError(
                f"{short(str(value))} is no {attribute.replace('_', ' ')} of this corpus.{near} Give one of "
                f"the {len(pool)} that its tokenizer knows."
            )
        before = people.facts(individual).get(attribute)
        name = people.name(individual)
        if before == new or (individual, attribute) in seen:
            why = "is that already" if before == new else "is given twice"
            raise ArgumentError(
                f"The {attribute.replace('_', ' ')} of {name}, {new}, {why}; give a new value, once."
            )
        seen.add((individual, attribute))
        found.append(Rewrite(name, attribute, new, before, individual))
    if not found:
        raise ArgumentError(
            "There is no new fact; give at least one (person, attribute, new value)."
        )
    return found


def _with_essence(
    texts: Texts, wanted: Tensor, kept: Tensor, more: Facts
) -> tuple[Texts, Tensor, Tensor]:
    """Texts with others below them, of which only the prediction after the prompt is kept."""
    added = more.texts
    starts = added.spans.value_start[:, 0]
    asked = torch.zeros_like(added.tokens, dtype=torch.bool)
    asked[torch.arange(len(starts)), starts] = True
    width = max(texts.tokens.shape[1], added.tokens.shape[1])

    def stacked(one: Tensor, other: Tensor, fill: int) -> Tensor:
        pad = torch.nn.functional.pad
        return torch.cat([pad(x, (0, width - x.shape[1]), value=fill) for x in (one, other)])

    tokens = stacked(texts.tokens, added.tokens, 0)
    spans = Spans.stack([texts.spans, added.spans])
    nothing = torch.full_like(added.tokens, -1)
    return Texts(tokens, spans), stacked(wanted, nothing, -1), stacked(kept, asked, 0)
