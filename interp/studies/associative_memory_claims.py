"""What the tables of the toy memory say: the claims, each with its rule and its numbers."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from statistics import fmean

from interp.plots import associative_memory as plots
from interp.seeds import number_of
from interp.studies import forgetting
from interp.studies.forgetting import Forgetting, Question, first, last
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement, Verdict, verdict
from interp.studies.study import Tables

_SOON = forgetting.forgets_soon.numbers["soon"]


@dataclass(frozen=True)
class _Setting(Forgetting):
    """The runs of one number of new pairs and one seed.

    Attributes:
        n_new: The number of new pairs.
    """

    n_new: int = 0


def _sizes(settings: Sequence[_Setting]) -> dict[str, list[_Setting]]:
    """The seeds of each number of new pairs, by its name."""
    sizes = sorted({one.n_new for one in settings})
    return {f"{n:,} new pairs": [one for one in settings if one.n_new == n] for n in sizes}


def _by_size(words: Callable[[Sequence[_Setting]], str]) -> Callable[[Sequence[_Setting]], str]:
    """What was measured, for each number of new pairs."""

    def measured(settings: Sequence[_Setting]) -> str:
        return "; ".join(f"{size}: {words(own)}" for size, own in _sizes(settings).items())

    return measured


def _number(
    what: str, read: Callable[[_Setting], float], against: float, form: str = ".2f"
) -> Number[Sequence[_Setting]]:
    """A number of each seed that knew the old pairs, for each number of new ones; a share, if unsigned."""

    def values(settings: Sequence[_Setting]) -> dict[str, list[float]]:
        return {
            size: [read(one) for one in own if first(one.old) >= forgetting.KNOWN]
            for size, own in _sizes(settings).items()
        }

    least, most = (-inf, inf) if form.startswith("+") else (0.0, 1.0)
    return Number(what, values, (against,), form, least, most)


def _measured_loss(own: Sequence[_Setting]) -> str:
    return (
        f"accuracy on old pairs {_mean(first(one.old) for one in own):.2f} before, "
        f"{_mean(last(one.old) for one in own):.2f} after {own[0].old.index[-1]:,} steps"
    )


def _measured_soon(own: Sequence[_Setting]) -> str:
    reached = sorted(one.half_lost for one in own if one.half_lost is not None)
    at = _mean(last(one.old[one.old.index <= _SOON]) for one in own)
    when = f"half of it is lost in {len(reached)} of {number_of(len(own), 'seed')}"
    if reached:
        when += f", first measured at step {reached[0]:,}"
        when += f" to {reached[-1]:,}" if reached[-1] > reached[0] else ""
    return f"accuracy on old pairs at step {_SOON} {at:.2f}; {when}"


def _measured_order(own: Sequence[_Setting]) -> str:
    learned = [one.new[one.half_lost] for one in own if one.half_lost is not None]
    if not learned:
        return "half of the old pairs is never lost"
    return f"accuracy on new pairs when half of the old ones is lost {_mean(learned):.2f}"


def _measured_ends(own: Sequence[_Setting], which: str) -> str:
    """Final accuracies by replay weight."""
    ends = [{0.0: (last(one.old), last(one.new)), **one.replayed} for one in own]
    words = []
    for weight in sorted(set.intersection(*map(set, ends))):
        old, new = (_mean(of_run[weight][i] for of_run in ends) for i in (0, 1))
        numbers = f"{old:.2f}" if which == "old" else f"{old:.2f} and {new:.2f}"
        words.append(f"{numbers} ({plots.weight_name(weight or nan)})")
    return f"final accuracy on {which} pairs by replay weight {', '.join(words)}"


def _mean(values: Iterable[float]) -> float:
    return fmean(float(value) for value in values)


def _rule(asked: Question, otherwise: str = "") -> Rule[_Setting]:
    """A rule that has to say the same for every number of new pairs and every seed."""

    def decide(
        settings: Sequence[_Setting], min_seeds: int, known: float, **numbers: float | int
    ) -> Verdict:
        n_seeds = Counter(one.n_new for one in settings)
        outcomes = [
            asked.holds(one, **numbers) if first(one.old) >= known else None for one in settings
        ]
        if None in outcomes or any(n < min_seeds for n in n_seeds.values()):
            return "cannot tell"
        return verdict(outcomes)

    ending = (
        " Agree: so for every number of new pairs and every seed; disagree: for none; else, or with "
        "fewer than {min_seeds} seeds, or where accuracy on old pairs began below {known:g}: cannot tell. "
        "Where each number of new pairs is decided, but not alike, each is a claim of its own (so since the "
        "tables were seen; before, that was: cannot tell)."
    )
    numbers = {**asked.numbers, "known": forgetting.KNOWN, "min_seeds": 3}
    return Rule(asked.about("pairs") + otherwise + ending, decide, numbers)


STATEMENTS = (
    Statement[_Setting](
        "Fine-tuning on new pairs alone destroys old ones, with no attention at all",
        "the same forgetting as in language models (Appendix Q and R)",
        _rule(forgetting.forgets),
        _by_size(_measured_loss),
        _number(
            "lowest accuracy on old pairs, as a share of what it was",
            _Setting.lowest_kept,
            forgetting.HALF,
        ),
    ),
    Statement[_Setting](
        "Old pairs are lost within a few hundred steps",
        "old knowledge of language models collapses within a few hundred steps (Fig. 5)",
        _rule(forgetting.forgets_soon),
        _by_size(_measured_soon),
        _number(
            f"lowest accuracy on old pairs by step {_SOON}, as a share of what it was",
            lambda one: one.lowest_kept(by=_SOON),
            forgetting.HALF,
        ),
    ),
    Statement[_Setting](
        "Old pairs are lost before new ones are learned",
        "language models have learned little that is new by then (Fig. 5)",
        _rule(forgetting.loses_first, "; where it never falls so far, it cannot be told."),
        _by_size(_measured_order),
        _number(
            "accuracy on new pairs when half of the old ones is lost",
            lambda one: one.learned_at_half_lost,
            forgetting.loses_first.numbers["learned"],
        ),
    ),
    Statement[_Setting](
        "Replay reduces the forgetting",
        "replay with weights from 1/32 to 2 helps (Fig. 5)",
        _rule(forgetting.replay_helps, "."),
        _by_size(lambda own: _measured_ends(own, "old")),
        _number(
            "final accuracy on old pairs with the heaviest replay, less that without",
            lambda one: one.gained_by_replay,
            forgetting.replay_helps.numbers["helps"],
            "+.2f",
        ),
    ),
    Statement[_Setting](
        "Replay helps only in part",
        "no replay weight avoids the forgetting without a cost (Fig. 5)",
        _rule(forgetting.replay_is_partial),
        _by_size(lambda own: _measured_ends(own, "old and new")),
        _number(
            "the smaller of two shares, old accuracy kept and new pairs learned, at the replay weight where "
            "it is largest",
            lambda one: one.best_of_both,
            forgetting.BOTH,
        ),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about forgetting, held against "finetuning", as made or read back from CSV."""
    table = tables["finetuning"]
    groups = table[table["metric"] == "accuracy"].groupby(["n_new", "seed"])
    settings = [
        _Setting.of(rows, "old", "new", n_new=int(rows["n_new"].iloc[0])) for _, rows in groups
    ]
    without_replay = [one for one in settings if len(one.old)]
    return [claim for one in STATEMENTS for claim in _together_or_apart(one, without_replay)]


def _together_or_apart(statement: Statement[_Setting], settings: Sequence[_Setting]) -> list[Claim]:
    """One claim, or one for each number of new pairs where the answer depends on it."""
    whole = statement.against(settings)
    sizes = sorted({one.n_new for one in settings})
    if whole.verdict != "cannot tell" or len(sizes) < 2:
        return [whole]
    apart = [
        replace(
            statement.against([one for one in settings if one.n_new == n]),
            claim=f"{statement.claim} ({n:,} new ones)",
        )
        for n in sizes
    ]
    return [whole] if any(one.verdict == "cannot tell" for one in apart) else apart
