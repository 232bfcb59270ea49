"""Changes in closed form, against plain solvers that know nothing of the formulas."""

import numpy as np
import pytest
import scipy.optimize
import torch

from interp.errors import ArgumentError
from interp.writing.closed_form import in_turn, least_squares, rank_one, regularised

N_IN, N_OUT, N = 7, 4, 3


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys [in, n], residuals [out, n], keys of other text [token, in], and their second moment."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    others = draw(40, N_IN) @ draw(N_IN, N_IN)
    return draw(N_IN, N), draw(N_OUT, N), others, others.T @ others / len(others)


def test_one_key_is_met_exactly_and_other_text_is_disturbed_least(drawn) -> None:  # type: ignore[no-untyped-def]
    keys, residuals, others, moment = drawn
    change = rank_one(keys[:, 0], residuals[:, 0], moment).change
    torch.testing.assert_close(change @ keys[:, 0], residuals[:, 0])
    assert torch.linalg.matrix_rank(change) == 1
    cost = lambda flat: np.square(others.numpy() @ flat.reshape(N_OUT, N_IN).T).sum() / len(others)  # noqa: E731
    met = {
        "type": "eq",
        "fun": lambda flat: (
            flat.reshape(N_OUT, N_IN) @ keys[:, 0].numpy() - residuals[:, 0].numpy()
        ),
    }
    found = scipy.optimize.minimize(
        cost, np.zeros(N_OUT * N_IN), constraints=[met], options={"maxiter": 500, "ftol": 1e-14}
    )
    np.testing.assert_allclose(found.x.reshape(N_OUT, N_IN), change.numpy(), atol=2e-4)


def test_many_keys_are_the_least_squares_solution(drawn) -> None:  # type: ignore[no-untyped-def]
    keys, residuals, others, moment = drawn
    weight = 0.7
    change = least_squares(keys, residuals, moment, weight).change
    rows = np.concatenate([keys.T.numpy(), (weight / len(others)) ** 0.5 * others.numpy()])
    wanted = np.concatenate([residuals.T.numpy(), np.zeros((len(others), N_OUT))])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    np.testing.assert_allclose(change.numpy(), expected, atol=1e-10)
    assert torch.linalg.matrix_rank(change) == N


def test_a_small_weight_meets_all_keys_and_a_large_one_none(drawn) -> None:  # type: ignore[no-untyped-def]
    keys, residuals, _, moment = drawn
    met = least_squares(keys, residuals, moment, 1e-9).change @ keys
    torch.testing.assert_close(met, residuals, atol=1e-5, rtol=0)
    missed = least_squares(keys, residuals, moment, 1e9).change @ keys
    assert missed.abs().max() < 1e-6


def test_in_turn_is_one_after_the_other(drawn) -> None:  # type: ignore[no-untyped-def]
    keys, residuals, _, moment = drawn
    matrix = torch.zeros(N_OUT, N_IN, dtype=torch.float64)
    for i in range(N):
        missing = residuals[:, i] - matrix @ keys[:, i]
        matrix = matrix + rank_one(keys[:, i], missing, moment).change
    torch.testing.assert_close(in_turn(keys, residuals, moment).change, matrix)
    torch.testing.assert_close(matrix @ keys[:, -1], residuals[:, -1])


def test_what_has_no_solution_is_refused(drawn) -> None:  # type: ignore[no-untyped-def]
    keys, residuals, _, moment = drawn
    with pytest.raises(ArgumentError, match="no neuron fires"):
        rank_one(torch.zeros(N_IN, dtype=torch.float64), residuals[:, 0], moment)
    with pytest.raises(ArgumentError, match="larger ridge"):
        rank_one(keys[:, 0], residuals[:, 0], -moment)
    with pytest.raises(ArgumentError, match="above 0"):
        least_squares(keys, residuals, moment, 0.0)
    with pytest.raises(ArgumentError, match="Give other texts"):
        regularised(torch.zeros(N_IN, N_IN, dtype=torch.float64), 0.1)
    flat = torch.ones(N_IN, N_IN, dtype=torch.float64)
    assert torch.linalg.matrix_rank(regularised(flat, 0.01)) == N_IN
    assert regularised(flat, 0.01)[0, 0] == pytest.approx(1.01)


def test_mentions_are_met_one_by_one(drawn) -> None:  # type: ignore[no-untyped-def]
    """The same sum of squares over every mention of every key, by a plain solver."""
    keys, residuals, others, moment = drawn
    generator = torch.Generator().manual_seed(5)
    spread = torch.randn(N, 6, N_IN, generator=generator, dtype=torch.float64)
    mentions = keys.T[:, None] + 0.3 * (spread - spread.mean(1, keepdim=True))
    asked = sum(one.T @ one / len(one) for one in mentions)
    change = least_squares(keys, residuals, moment, 0.7, asked).change
    left = torch.cat([(mentions / 6**0.5).reshape(-1, N_IN), others * (0.7 / len(others)) ** 0.5])
    right = torch.cat(
        [
            (residuals.T[:, None] / 6**0.5).expand(-1, 6, -1).reshape(-1, N_OUT),
            torch.zeros(len(others), N_OUT, dtype=torch.float64),
        ]
    )
    torch.testing.assert_close(torch.linalg.lstsq(left, right).solution.T, change)
    same = least_squares(keys, residuals, moment, 0.7, keys @ keys.T)
    torch.testing.assert_close(same.change, least_squares(keys, residuals, moment, 0.7).change)
