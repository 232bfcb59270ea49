"""Arguments of public functions are checked where they come in: one line that names the argument."""

from collections.abc import Callable
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.attention import attention_to_names, knockout_costs, sharpness
from interp.biographies import Corpus, Population, Spans, control_mask
from interp.biographies.sampling import Uniform, celebrities, group, sequential
from interp.errors import ArgumentError, NothingToMeasureError
from interp.interventions import swapped_attributes, swapped_people
from interp.memory import (
    ablation_costs,
    area_under,
    draw_batches,
    half_strength_step,
    measure_memory,
    swap_pairs,
    swaps,
)
from interp.phases import sensitivity
from interp.run import Run
from interp.series import corpus_of
from tests.fixtures import Child

ORDER = np.arange(6)[None]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda corpus: corpus.biographies(slice(5, 2)), "nobody"),
        (lambda corpus: corpus.biographies(np.arange(0)), "nobody"),
        (lambda corpus: corpus.biographies(slice(0, 5, 0)), "0 to 31"),
        (lambda corpus: swapped_people(corpus, n=10**9), "at most 100,000 pairs"),
        (lambda corpus: swapped_attributes(corpus, n=10**9), "at most 100,000 pairs"),
        (lambda corpus: corpus.biographies(np.array([99])), "0 to 31"),
        (lambda corpus: corpus.biographies(slice(0, 2), draw=-1), "draw=-1"),
        (lambda corpus: corpus.batch(0, 0), "size=0"),
        (lambda corpus: corpus.batch(-1, 4), "step=-1"),
        (lambda corpus: corpus.value_tokens("age"), "attribute 'age'"),
        (lambda corpus: corpus.assemble(np.arange(1), ORDER * 0, ORDER), "order"),
        (lambda corpus: corpus.assemble(np.arange(1), ORDER, ORDER + 99), "wordings"),
        (lambda corpus: corpus.biographies(slice(0, 8))[5:2], "none of 8"),
        (lambda corpus: corpus.biographies(slice(0, 8)).split(0), "batch_size=0"),
        (lambda corpus: corpus.population.name(99), "0 to 31"),
        (lambda corpus: corpus.population.facts(-1), "individual -1"),
        (lambda corpus: Population.draw(corpus.population.config, -1), "seed=-1"),
        (lambda corpus: Uniform(0), "n=0"),
        (lambda corpus: celebrities(5, 2, -1.0), "probabilities"),
        (lambda corpus: group(5, 0, 0), "n_groups=0"),
        (lambda corpus: sequential(5, 1, 0, 1), "n_repeats=0"),
        (
            lambda corpus: control_mask(
                Spans.of(corpus.biographies(slice(0, 2))), torch.zeros(1, 1, dtype=torch.bool)
            ),
            "shape",
        ),
        (lambda corpus: draw_batches(corpus, slice(0, 2), "evaluation", []), "draws"),
        (lambda corpus: half_strength_step([1], [1.0, 2.0]), "2 strengths"),
        (lambda corpus: sharpness(torch.ones(2, 1), torch.tensor([1, 1])), "n=1"),
    ],
)
def test_an_argument_that_cannot_work_is_named(
    corpus: Corpus, call: Callable[[Corpus], object], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        call(corpus)


def test_people_in_reverse_order(corpus: Corpus) -> None:
    people = corpus.biographies(slice(None, 3, -1)).individuals
    assert people.tolist() == list(range(len(corpus.population) - 1, 3, -1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: run.texts(n_individuals=-3), "n_individuals=-3"),
        (lambda run: run.model(device="nowhere"), "device='nowhere'"),
        (lambda run: run.phases_at(2.0), "delta=2.0"),
        (lambda run: attention_to_names(run, batch_size=0), "batch_size=0"),
        (lambda run: knockout_costs(run.model(), run.texts(), batch_size=0), "batch_size=0"),
        (lambda run: measure_memory(run, draws=1), "draws=1"),
        (lambda run: measure_memory(run, seed=-1), "seed=-1"),
        (lambda run: swap_pairs(run, 0), "n=0"),
        (lambda run: swap_pairs(run, 4, -1), "seed=-1"),
        (lambda run: swaps(run, pairs={}), "pairs"),
        (lambda run: ablation_costs(run.model(), run.texts(), []), "No position"),
    ],
)
def test_a_measure_names_the_argument_that_cannot_work(
    short_run: Run, call: Callable[[Run], object], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        call(short_run)


def test_what_has_none_of_what_is_measured_says_so() -> None:
    with pytest.raises(NothingToMeasureError, match="0 known"):
        area_under(np.ones(3), np.ones(0))
    with pytest.raises(NothingToMeasureError, match="0 nats"):
        sensitivity([0, 5], [1.0, 0.5], baseline=0.0)


WRONG_TYPES = """
import numpy as np, interp
from interp.attention import attention_scores, attention_to_names, by_layer, head_roles
from interp.errors import ArgumentError
from interp.memory import emergence_steps, locate_fact, swap_pairs, top_tokens
from interp.run import Run
import torch

run = Run.load(out)
corpus, people = run.corpus, run.population
batch = corpus.biographies(slice(0, 8))
calls = {
    "individuals=5": lambda: corpus.biographies(5),
    "individuals=a": lambda: corpus.biographies("a"),
    "individuals=None": lambda: corpus.biographies(None),
    "individuals=[0.5]": lambda: corpus.biographies(np.array([0.5])),
    "kind of wordings 'x'": lambda: corpus.biographies(slice(0, 2), "x"),
    "size='4'": lambda: corpus.batch(0, "4"),
    "names none of 8": lambda: batch[3],
    "person=True": lambda: people.individual(True),
    "name=3": lambda: people.find(3),
    "path=3": lambda: Run.load(3),
    "step='300'": lambda: run.model(step="300"),
    "step=1.5": lambda: run.model(1.5),
    "step=True": lambda: run.model(True),
    "step='2'": lambda: run.patched(None, "2"),
    "steps=2": lambda: list(run.models(2)),
    "split 'x'": lambda: run.texts("x"),
    "n_individuals='3'": lambda: run.texts(n_individuals="3"),
    "delta=x": lambda: run.phases_at("x"),
    "steps=4": lambda: attention_to_names(run, 4),
    "step='4'": lambda: attention_to_names(run, ["4"]),
    "workers='x'": lambda: attention_to_names(run, workers="x"),
    "texts are list": lambda: attention_to_names(run, texts=[1]),
    "texts are Tensor": lambda: attention_scores(None, batch.tokens),
    "NoneType is no table": lambda: by_layer(None),
    "list is no table": lambda: head_roles([]),
    "str is no table": lambda: emergence_steps("x"),
    "n='x'": lambda: swap_pairs(run, "x"),
    "top='2'": lambda: locate_fact(run, 0, "university", top="2"),
    "k='a'": lambda: top_tokens(torch.ones(2, 3), corpus.tokenizer, "a"),
}
assert len(run.model(step=np.int64(4)).state_dict())
for words, call in calls.items():
    try:
        call()
    except ArgumentError as error:
        assert words in str(error), (words, str(error))
    else:
        raise AssertionError(f"accepted: {words}")
"""


def test_an_argument_of_another_type_is_named(
    short_run: Run, child: Callable[[str, Path], Child]
) -> None:
    """In another process, as tests check types before a function is entered."""
    other = child(WRONG_TYPES, short_run.path)
    assert other.wait() == 0, other.error


@pytest.mark.parametrize("wrong", ["x", 3, {"corpus": None}])
def test_people_that_are_no_corpus_are_refused(smoke_run: Run, wrong: object) -> None:
    with pytest.raises(ArgumentError, match=f"corpus is a {type(wrong).__name__}; give"):
        unwrap(corpus_of)(smoke_run, corpus=wrong)
    with pytest.raises(ArgumentError, match="has no people of its own"):
        corpus_of({0: smoke_run.model(0)})
    assert corpus_of(smoke_run) is smoke_run.corpus
