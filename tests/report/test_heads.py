"""What the head of a page says the run is."""

from collections.abc import Callable

import interp
from interp.config import Config
from interp.report.summary import about, headline
from interp.run import Run, finetuned


def test_a_fine_tuned_run_did_not_learn_everybody_itself(
    trained: Callable[..., Run], short_run: Run
) -> None:
    """The base did; what fine-tuning was on is said below."""
    of_base = {"finetuning.base": str(short_run.path), "finetuning.people": "new"}
    run = trained(finetuned(short_run.config, **of_base, **{"training.n_steps": 4}))
    said = headline(run)
    n = run.config.population.n_individuals
    assert f"that had learned the biographies of {n:,} people, fine-tuned for 4 steps" in said
    assert "training started from the run" in " ".join(about(run))
    assert "who were held out so far" in " ".join(about(run))


def test_a_recurrent_model_says_so(trained: Callable[..., Run], smoke: Config) -> None:
    config = smoke.with_settings(**{"model.recurrence": "rg_lru", "training.n_steps": 4})
    assert headline(trained(config)).startswith("A recurrent model (RG-LRU) of")
    assert headline(trained(interp.preset("smoke"))).startswith("A transformer of")
