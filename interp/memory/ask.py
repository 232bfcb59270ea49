"""One person's facts, asked for in every form, and where the answers come from.

A question is the text of a form up to the answer. The model goes on by itself, greedily, to the end of
a value: longer text that begins no value of the attribute is cut off at punctuation. In forms without
type words (mnemonic, fused, polyglot) the value asked for is the last one left, as nothing else says which
is asked for; the polyglot form is answered right in any language.

Where an answer comes from is asked by swaps: the residual stream of another person in the same sentence, at
the last name token or where the answer is predicted, takes the place of one's own; a swap at a token
of text is the control (Geiger et al. 2021; Meng et al. 2022).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import SupportsIndex, get_args

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from interp.asking import NAME
from interp.biographies import FORMS, Corpus, SentenceForm, Wordings
from interp.biographies.forms import Mnemonic, form_class
from interp.biographies.tokenizer import PUNCTUATION
from interp.errors import (
    ArgumentError,
    ConfigError,
    NothingToMeasureError,
    listed,
    require_known,
    whole_number,
)
from interp.interventions import (
    LOGIT_DIFFERENCE,
    Grid,
    Pairs,
    control_positions,
    patch,
    resolve_positions,
)
from interp.interventions.swapped import paired
from interp.memory.asked import ASKED_COLUMNS, SWAPPED_COLUMNS, Asked
from interp.model import logits_at, measuring, require_numbers
from interp.progress import silent
from interp.series import (
    AnySeries,
    Device,
    as_series,
    corpus_of,
    over_steps,
    steps_of,
    using_adapter,
)
from interp.torch_state import default_state

SWAPPED_FORMS = ("biography", "question")
"""The forms in which it is asked where an answer comes from."""
_SWAPPED_POSITIONS = ("last name", "predicts value")
_ORDERS = 64  # drawn for each attribute, until it is the last: fails once in 10**27


@dataclass(frozen=True)
class _Question:
    """A question: its tokens, the answers that are right, and those that there are."""

    form: str
    attribute: str
    wording: int
    tokens: tuple[int, ...]
    value: str
    right: frozenset[tuple[int, ...]]
    known: frozenset[tuple[int, ...]]
    longest: int


@default_state()
def ask(
    series: AnySeries,
    person: SupportsIndex | str,
    attribute: str | None = None,
    *,
    step: int | None = None,
    steps: Sequence[int] | None = None,
    forms: str | Sequence[str] | None = None,
    adapter: str | None = None,
    wordings: Wordings = "evaluation",
    draw: int = 0,
    others: int = 16,
    corpus: Corpus | None = None,
    device: Device = None,
) -> Asked:
    """Asks a model for the facts of one person in every form that its tokenizer knows.

    Args:
        series: A run, models by step, or one model over the corpus's tokens.
        person: Their index, their full name, or a part of it that nobody else has; held-out people are
            allowed.
        attribute: One attribute, with _, - or spaces between words; all by default.
        step: The checkpoint; the last by default.
        steps: Several checkpoints, in place of `step`.
        forms: Names out of `interp.biographies.FORMS`; by default all that the tokenizer knows and the
            context has room for, the others are named in `Asked.left_out`.
        adapter: Of a run that trains one, "merged", "on" or "off" (see `Run.model`); by default as in
            training.
        wordings: "evaluation" for the wordings never seen with this person, "train" for the others.
        draw: Another number gives other orders and wordings in forms other than sentences.
        others: With how many other people, at most, activations are swapped: of so many, those whose own
            value is predicted; 0 leaves `Asked.swaps` empty.
        corpus: The people, where the series is no run.
        device: Where to compute; where the models are by default.

    Raises:
        RunError: nobody has that name, several people have, or there was no adapter at a step.
        ArgumentError: no such attribute, form or wordings, both `step` and `steps`, or no corpus.
        ConfigError: the tokenizer does not know the words of a form that is named.
        NothingToMeasureError: the person has no value of the attribute.
        CheckpointError: there is no checkpoint at a step.

    Example:
        ```python
        asked = interp.ask(run, "Wim Mireia Vasiliev", "university")
        asked.answers[["form", "answer", "right", "probability"]]
        asked.sources()
        ```
    """
    if step is not None and steps is not None:
        raise ArgumentError(
            f"step={step} and steps={list(steps)} are both given; give one of them."
        )
    require_known([wordings], get_args(Wordings), "kind of wordings")
    others, draw = whole_number(others, "others", 0), whole_number(draw, "draw", 0)
    corpus = corpus_of(series, corpus)
    individual = corpus.population.individual(person)
    attributes = _attributes(corpus, individual, attribute)
    named = None if forms is None else listed(forms, "forms")
    if named == []:
        raise ArgumentError(f"No form is named; forms are {', '.join(FORMS)}.")
    questions, left_out = _questions(corpus, individual, attributes, named, wordings, draw)
    chosen = using_adapter(series, adapter)
    if steps is None:
        steps = [steps_of(as_series(chosen))[-1] if step is None else step]
    pairs = _swapped(corpus, individual, attributes, questions, others)
    measure = partial(_asked_of, questions=questions, pairs=pairs, corpus=corpus, strict=named)
    found = over_steps(chosen, measure, steps, device, progress=silent)
    for _, (_, _, too_long) in found:
        left_out |= too_long
    answers = pd.concat([table.assign(step=at) for at, (table, _, _) in found], ignore_index=True)
    swaps = pd.concat([table.assign(step=at) for at, (_, table, _) in found], ignore_index=True)
    return Asked(
        individual,
        corpus.population.name(individual),
        bool(corpus.population.is_held_out[individual]),
        answers[list(ASKED_COLUMNS)],
        swaps[[*SWAPPED_COLUMNS, "unpatched", "effect"]],
        left_out,
    )


def _attributes(corpus: Corpus, individual: int, attribute: str | None) -> list[str]:
    """The attributes that are asked for, of those that the person has."""
    facts = corpus.population.facts(individual)
    name = corpus.population.name(individual)
    if attribute is None:
        if not facts:
            raise NothingToMeasureError(f"{name} has no fact at all; ask for somebody else.")
        return list(facts)
    known = {_joined(one): one for one in corpus.attributes}
    require_known([_joined(attribute)], known, "attribute")
    found = known[_joined(attribute)]
    if found not in facts:
        raise NothingToMeasureError(
            f"{name} has no {found.replace('_', ' ')}; there are {', '.join(facts) or 'no facts'}."
        )
    return [found]


def _joined(attribute: str) -> str:
    return "_".join(attribute.casefold().replace("-", " ").replace("_", " ").split())


def _questions(
    corpus: Corpus,
    individual: int,
    attributes: Sequence[str],
    named: Sequence[str] | None,
    wordings: Wordings,
    draw: int,
) -> tuple[list[_Question], dict[str, str]]:
    """The questions in some forms, by default in all; and the forms that cannot be, with the reasons."""
    questions, left_out = [], {}
    for name in FORMS if named is None else named:
        form_class(name)
        try:
            form = corpus.form(name)
        except ConfigError as error:
            if named is not None:
                raise
            left_out[name] = str(error)
            continue
        if isinstance(form, SentenceForm):
            own = _of_sentences(corpus, form, individual, attributes, wordings)
        elif isinstance(form, Mnemonic):
            own = _of_lists(corpus, form, individual, attributes, draw)
        else:
            own = _of_others(corpus, name, individual, attributes, wordings, draw)
        if not own:
            asked = " or ".join(attributes).replace("_", " ")
            left_out[name] = f"it does not ask for the {asked}."
        questions += own
    if not questions:
        reasons = " ".join(f"{name}: {why}" for name, why in left_out.items())
        raise NothingToMeasureError(f"There is nothing to ask in these forms. {reasons}")
    return questions, left_out


def _of_sentences(
    corpus: Corpus, form: SentenceForm, individual: int, attributes: Sequence[str], which: Wordings
) -> list[_Question]:
    """A question in each wording, in the first sentence."""
    found = []
    facts = corpus.population.facts(individual)
    for attribute in attributes:
        index = corpus.attributes.index(attribute)
        own = form.wordings(which)[individual]
        templates = list(dict.fromkeys(own[index].tolist()))
        chosen = np.repeat(own[None, :, 0], len(templates), axis=0).astype(np.int64)
        chosen[:, index] = templates
        others = [other for other in range(len(corpus.attributes)) if other != index]
        order = np.tile([index, *others], (len(templates), 1))
        batch = form.exactly(np.full(len(templates), individual), order, chosen)
        known = frozenset(map(tuple, corpus.value_tokens(attribute)))
        for row, template in enumerate(templates):
            start = int(batch.value_start[row, index])
            value = batch.tokens[row, start : start + int(batch.value_length[row, index])]
            found.append(
                _Question(
                    form.name, attribute, template, tuple(batch.tokens[row, :start].tolist()),
                    facts[attribute], frozenset([tuple(value.tolist())]), known, _longest(known),
                )
            )  # fmt: skip
    return found


def _of_lists(
    corpus: Corpus, form: Mnemonic, individual: int, attributes: Sequence[str], draw: int
) -> list[_Question]:
    """A question for the last value that is left, of each attribute."""
    facts, n_attributes = corpus.population.facts(individual), len(corpus.attributes)
    people = np.full(_ORDERS * n_attributes, individual)
    batch = corpus.sequences(people, form.name, "evaluation", draw)
    last = batch.value_start.argmax(dim=1)
    versions = [form.value_tokens(index) for index in range(n_attributes)]
    known = frozenset(tuple(v) for languages in versions for pool in languages for v in pool)
    found = []
    for attribute in attributes:
        index = corpus.attributes.index(attribute)
        row = int((last == index).nonzero()[0, 0])
        own = int(corpus.population.values[individual, index])
        found.append(
            _Question(
                form.name, attribute, 0,
                tuple(batch.tokens[row, : int(batch.value_start[row, index])].tolist()),
                facts[attribute], frozenset(tuple(pool[own]) for pool in versions[index]), known,
                _longest(known),
            )
        )  # fmt: skip
    return found


def _of_others(
    corpus: Corpus,
    form: str,
    individual: int,
    attributes: Sequence[str],
    wordings: Wordings,
    draw: int,
) -> list[_Question]:
    """The questions of a form of another kind: one for each answer of its sequence."""
    batch = corpus.sequences(np.array([individual]), form, wordings, draw)
    numbers, tokens = batch.answer[0].tolist(), batch.tokens[0].tolist()
    found = []
    for number in sorted(set(numbers) - {-1}):
        places = [place for place, one in enumerate(numbers) if one == number]
        index = int(batch.attribute[0, places[0]])
        attribute = NAME if index < 0 else corpus.attributes[index]
        if attribute not in (NAME, *attributes):
            continue
        right = tuple(tokens[place] for place in places)
        value = str(corpus.tokenizer.decode(list(right)))
        found.append(
            _Question(
                form, attribute, 0, tuple(tokens[: places[0]]), value, frozenset([right]),
                frozenset([right]), len(right),
            )
        )  # fmt: skip
    return found


def _longest(values: Iterable[tuple[int, ...]]) -> int:
    return max(map(len, values))


def _asked_of(
    model: TransformerBridge,
    questions: Sequence[_Question],
    pairs: dict[tuple[str, str], Pairs],
    corpus: Corpus,
    strict: Sequence[str] | None,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """The answers, the swaps, and the forms that do not fit into the context."""
    n_ctx = model.cfg.n_ctx
    too_long = {
        q.form: f"its question has {len(q.tokens)} tokens and its answer up to {q.longest}, but the "
        f"model's context is {n_ctx} tokens."
        for q in questions
        if len(q.tokens) + q.longest > n_ctx
    }
    fitting = [q for q in questions if q.form not in too_long]
    if too_long and (strict is not None or not fitting):
        form, why = next(iter(too_long.items()))
        raise ConfigError(f"The form {form!r} cannot be asked in: {why} Leave it out.")
    with measuring(model):
        said = _continued(model, fitting, corpus)
        numbers = _probabilities(model, fitting)
    word = corpus.tokenizer.decode
    rows = [
        (
            q.form, q.attribute, q.wording, _text(corpus, q.tokens[1:]), q.value,
            _text(corpus, own), own in q.right, whole, first, str(word([other])).strip() or " ", chance,
        )
        for q, own, (whole, first, other, chance) in zip(fitting, said, numbers, strict=True)
    ]  # fmt: skip
    tables = [_swap_table(model, own).assign(form=f, attribute=a) for (f, a), own in pairs.items()
              if f not in too_long]  # fmt: skip
    swaps = pd.concat(tables) if tables else pd.DataFrame(
        columns=[*SWAPPED_COLUMNS[1:], "unpatched", "effect"]
    )  # fmt: skip
    return pd.DataFrame(rows, columns=list(ASKED_COLUMNS[1:])), swaps, too_long


def _text(corpus: Corpus, tokens: Sequence[int]) -> str:
    """Tokens as text; a colon stands at its word."""
    return str(corpus.tokenizer.decode(list(tokens))).replace(" :", ":").strip()


def _continued(
    model: TransformerBridge, questions: Sequence[_Question], corpus: Corpus
) -> list[tuple[int, ...]]:
    """The model's own greedy answers, at least one token each."""
    tokenizer = corpus.tokenizer
    device = next(model.parameters()).device
    stops = {tokenizer.pad_token_id, tokenizer.bos_token_id}
    stops |= {i for i in map(tokenizer.convert_tokens_to_ids, PUNCTUATION) if i is not None}
    begun = [{value[:n] for value in q.known for n in range(1, len(value) + 1)} for q in questions]
    said: list[tuple[int, ...]] = [()] * len(questions)
    going = list(range(len(questions)))
    while going:
        texts = [torch.tensor([*questions[i].tokens, *said[i]]) for i in going]
        tokens = pad_sequence(texts, batch_first=True).to(device)
        ends = torch.tensor([len(text) - 1 for text in texts], device=device)
        logits = logits_at(model, tokens, torch.arange(len(texts), device=device), ends)
        require_numbers(logits, "logits")
        still = []
        for i, token in zip(going, logits.argmax(-1).tolist(), strict=True):
            longer = (*said[i], token)
            ended = said[i] in questions[i].known or token in stops
            if said[i] and ended and longer not in begun[i]:
                continue
            said[i] = longer
            if len(longer) < questions[i].longest:
                still.append(i)
        going = still
    return said


def _probabilities(
    model: TransformerBridge, questions: Sequence[_Question]
) -> list[tuple[float, float, int, float]]:
    """Of the right answer, of its first token; the strongest other first token, and its own."""
    device = next(model.parameters()).device
    told = [(q, right) for q in questions for right in sorted(q.right)]
    texts = [torch.tensor([*q.tokens, *right]) for q, right in told]
    lengths = [len(right) for _, right in told]
    row = torch.arange(len(told)).repeat_interleave(torch.tensor(lengths))
    place = torch.cat([torch.arange(len(q.tokens), len(q.tokens) + len(r)) for q, r in told])
    tokens = pad_sequence(texts, batch_first=True)
    targets = tokens[row, place]
    logits = logits_at(model, tokens.to(device), row.to(device), (place - 1).to(device)).cpu()
    log_p = logits.double().log_softmax(-1)
    own = log_p.gather(1, targets[:, None])[:, 0].split(lengths)
    firsts = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()])
    found, at = [], 0
    for q in questions:
        n = len(q.right)
        whole = sum(float(part.sum().exp()) for part in own[at : at + n])
        chances = log_p[firsts[at]].exp()
        begins = sorted({right[0] for right in q.right})
        first = float(chances[begins].sum())
        chances[begins] = -1.0
        other = int(chances.argmax())
        found.append((whole, first, other, float(chances[other])))
        at += n
    return found


def _swapped(
    corpus: Corpus,
    individual: int,
    attributes: Sequence[str],
    questions: Sequence[_Question],
    n: int,
) -> dict[tuple[str, str], Pairs]:
    """The person and others in the same sentence, by form and attribute; none where nobody differs."""
    if not n:
        return {}
    found = {}
    for name in SWAPPED_FORMS:
        for attribute in attributes:
            own = [q for q in questions if (q.form, q.attribute) == (name, attribute)]
            index = corpus.attributes.index(attribute)
            firsts = np.array([ids[0] for ids in corpus.value_tokens(attribute)])
            values = corpus.population.values[: corpus.population.config.n_individuals, index]
            mine = int(corpus.population.values[individual, index])
            differ = np.flatnonzero((values >= 0) & (firsts[values] != firsts[mine]))
            if not own or not len(differ):
                continue
            spread = np.linspace(0, len(differ) - 1, min(n, len(differ))).astype(int)
            others = differ[np.unique(spread)]
            form = corpus.form(name)
            assert isinstance(form, SentenceForm)
            rest = [other for other in range(len(corpus.attributes)) if other != index]
            order = np.tile([index, *rest], (len(others), 1))
            templates = np.full((len(others), len(corpus.attributes)), own[0].wording)
            base = form.exactly(np.full(len(others), individual), order, templates)
            source = form.exactly(others, order, templates)
            found[name, attribute] = paired(base, source, np.full(len(others), index))
    return found


def _swap_table(model: TransformerBridge, pairs: Pairs) -> pd.DataFrame:
    """What swaps of the residual stream do to the answer, with those whose own answer is predicted."""
    with measuring(model):
        device = next(model.parameters()).device
        rows = torch.arange(len(pairs), device=device)
        logits = logits_at(model, pairs.source.to(device), rows, pairs.source_read.to(device))
    knowing = logits.argmax(-1).cpu() == pairs.source_answer
    n_knowing = int(knowing.sum())
    pairs = pairs[knowing] if n_knowing else pairs
    masks = resolve_positions(pairs, _SWAPPED_POSITIONS)
    masks["control"] = control_positions(pairs, masks["last name"])
    grid = Grid("resid_post", masks)
    table = patch(model, pairs, grid, metrics=("follows", "stays", LOGIT_DIFFERENCE))
    wide = table.pivot(index=["layer", "position"], columns="metric")
    cells = pd.DataFrame(
        {
            "n": n_knowing, "follows": wide["value"]["follows"],
            "kept": wide["value"]["stays"], "unpatched": wide["unpatched"]["stays"],
            "effect": wide["change"][LOGIT_DIFFERENCE],
        }
    ).reset_index()  # fmt: skip
    if not n_knowing:
        cells[["follows", "kept", "effect"]] = np.nan
    is_control = cells["position"] == "control"
    control = cells.loc[is_control, ["layer", "follows"]].rename(columns={"follows": "control"})
    return cells[~is_control].merge(control, on="layer", how="left")
