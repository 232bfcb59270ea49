import numpy as np
import pytest
from scipy import stats

from interp.biographies import sampler
from interp.biographies.sampling import power_law
from interp.config import Config, SamplingConfig

N, DRAWS = 50, 100_000
UNIFORM = SamplingConfig()
ZIPF = SamplingConfig(kind="power_law", exponent=1.0)


def draws(config: SamplingConfig, seed: int = 0) -> np.ndarray:
    whole = Config().with_settings(**{"population.n_individuals": N, "sampling": config})
    return sampler(whole).draw(np.random.default_rng(seed), step=0, size=DRAWS)


def counts(config: SamplingConfig) -> np.ndarray:
    return np.bincount(draws(config), minlength=N)


def test_uniform_frequencies() -> None:
    observed = counts(UNIFORM)
    assert len(observed) == N
    assert stats.chisquare(observed).pvalue > 1e-3


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_power_law_frequencies(exponent: float) -> None:
    exact = np.array([i**-exponent for i in range(1, N + 1)])
    exact /= exact.sum()
    observed = counts(SamplingConfig(kind="power_law", exponent=exponent))
    assert len(observed) == N
    assert stats.chisquare(observed, exact * DRAWS).pvalue > 1e-3


def test_exponent_0_is_uniform() -> None:
    np.testing.assert_allclose(power_law(N, 0.0).probabilities, 1 / N)


def test_zipf_probabilities() -> None:
    probabilities = power_law(4, 1.0).probabilities
    np.testing.assert_allclose(probabilities, np.array([12, 6, 4, 3]) / 25)


@pytest.mark.parametrize("config", [UNIFORM, ZIPF])
def test_deterministic(config: SamplingConfig) -> None:
    np.testing.assert_array_equal(draws(config), draws(config))
    assert not np.array_equal(draws(config), draws(config, seed=1))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 10.0])
def test_power_law_stays_in_range(exponent: float) -> None:
    for n in (1, 3, 100_000):
        drawn = power_law(n, exponent).draw(np.random.default_rng(0), step=0, size=10_000)
        assert drawn.min() >= 0
        assert drawn.max() < n
