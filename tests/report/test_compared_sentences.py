"""Sentences over the runs that a page compares, for two of them and for many."""

import pytest

from interp.report.compared_overview import plateau_sentence
from interp.report.compared_runs import spread


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ((300, 300), "Both seeds leave the plateau at step 300."),
        ((None, None), "Neither seed has left its plateau."),
        ((300, None), "1 of the 2 seeds leaves the plateau at step 300 (seed 0)."),
        ((300, 300, 300), "All 3 seeds leave the plateau at step 300."),
        ((300, None, 300), "2 of the 3 seeds leave the plateau at step 300."),
        ((None, None, None), "None of the 3 seeds has left its plateau."),
    ],
)
def test_sentences_over_two_seeds_and_over_many(ends: tuple[int | None, ...], says: str) -> None:
    by_label = {f"seed {n}": end for n, end in enumerate(ends)}
    assert plateau_sentence(by_label, "seed") == says


def test_what_all_runs_have_alike_is_said_of_all_of_them() -> None:
    labels = ("a", "b", "c")
    said = [spread(dict.fromkeys(labels[:n], 0.5), "{:.2f}") for n in (1, 2, 3)]
    assert said == ["0.50 (a)", "0.50 in both runs", "0.50 in all 3 runs"]
    assert spread(dict.fromkeys(labels, 0.5), "{:.2f}", what=None) == "0.50"
