"""Batches that are drawn ahead are those of their steps, whatever steps are asked for."""

import threading

import pytest
import torch

from interp.biographies import Batch, Corpus
from interp.training.ahead import DrawnAhead


@pytest.mark.parametrize("steps", [range(6), [3, 4, 9, 10, 2, 3]], ids=["in order", "in leaps"])
def test_batches_are_those_of_their_steps(corpus: Corpus, steps: list[int]) -> None:
    with DrawnAhead(lambda step: corpus.batch(step, 4), last=20) as batches:
        for step in steps:
            assert torch.equal(batches.at(step).tokens, corpus.batch(step, 4).tokens)


def test_the_next_one_is_drawn_meanwhile(corpus: Corpus) -> None:
    drawn: list[tuple[int, bool]] = []
    next_one = threading.Event()

    def draw(step: int) -> Batch:
        drawn.append((step, threading.current_thread() is threading.main_thread()))
        if step > 0:
            next_one.set()
        return corpus.batch(step, 2)

    with DrawnAhead(draw, last=2) as batches:
        batches.at(0)
        assert next_one.wait(10)
        batches.at(1)
    assert drawn == [(0, True), (1, False)], "nothing is drawn that no step reads"


def test_what_goes_wrong_ahead_is_raised_at_its_step(corpus: Corpus) -> None:
    def draw(step: int) -> Batch:
        if step == 1:
            raise KeyError("one")
        return corpus.batch(step, 2)

    with DrawnAhead(draw, last=5) as batches:
        batches.at(0)
        with pytest.raises(KeyError, match="one"):
            batches.at(1)
        assert len(batches.at(2)) == 2
