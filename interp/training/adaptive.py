"""The adaptive schedule: how many people are shown depends on what the model knows of them.

The paper (section 6) only proposes it. At first a few people are shown, so that the plateau is short.
At each measurement of training the schedule looks at those shown, in wordings never seen with them:
once their attribute loss has been below (1 - δ) times their own no-knowledge baseline at two
measurements in a row (the definition of the plateau's end, made causal), more are shown: everybody, or
("gradual") twice as many, which the same rule repeats until everybody is. There is no setting for when.
"""

from typing import Any

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus
from interp.biographies.sampling import Stages, Uniform
from interp.config import Config
from interp.knowledge import Baseline, chosen_evenly, mean_metric, value_table
from interp.phases import DELTA
from interp.run import Run, observation

SPLIT = "shown"
"""In the metrics: the people shown so far (`attribute_loss` in nats, `individuals` as a count)."""


class AdaptiveSchedule:
    """Decides, at each measurement, how many people are shown from there on.

    Args:
        config: Settings with adaptive sampling.
        corpus: Its corpus, whose sampler the schedule moves on.
        run: What was decided before a resumed run was interrupted is read from its metrics.
    """

    def __init__(self, config: Config, corpus: Corpus, run: Run) -> None:
        assert isinstance(corpus.sampler, Stages)
        assert config.sampling.indiv_warmup is not None
        self._config = config
        self._corpus = corpus
        self._stages: Stages = corpus.sampler
        self.everybody = config.population.n_individuals
        self.shown: int = config.sampling.indiv_warmup
        self._below = False  # whether the last measurement was below the threshold
        for step, count in run.stages:
            self._show(step, count)
        self._remember(run)

    def measured(self, model: TransformerBridge, step: int) -> list[dict[str, Any]]:
        """Measures the people shown, decides (at multiples of `evaluation.every`), returns metrics."""
        if step % self._config.evaluation.every:
            return []
        rows = []
        if self.shown < self.everybody:
            n = self._config.evaluation.n_individuals
            people = chosen_evenly(np.arange(self.shown), n, alike=False)
            table = value_table(model, self._corpus.biographies(people))
            loss = mean_metric(table, "attribute_loss")
            below = loss < self._threshold()
            rows.append(observation(step, SPLIT, "attribute_loss", loss))
            if below and self._below:
                at_once = self._config.sampling.growth == "at_once"
                self._show(step, self.everybody if at_once else 2 * self.shown)
            else:
                self._below = below
        return [*rows, observation(step, SPLIT, "individuals", float(self.shown))]

    def follow(self, step: int, shown: int) -> None:
        """Shows as many people as the process that measures has decided at a step."""
        if shown != self.shown:
            self._show(step, shown)

    def _threshold(self) -> float:
        statistics = Baseline.of(self._corpus.population, self.shown).statistics
        return (1 - DELTA) * Baseline.overall(statistics)

    def _show(self, step: int, count: int) -> None:
        self.shown = min(count, self.everybody)
        self._stages.begin(step, Uniform(self.shown))
        self._below = False

    def _remember(self, run: Run) -> None:
        """Whether the last measurement before an interruption was below the threshold."""
        if not run.metrics_path.exists():
            return
        losses = run.metrics.query("split == @SPLIT and metric == 'attribute_loss'")
        grew_at = [step for step, _ in run.stages]
        if len(losses) and int(losses["step"].iloc[-1]) not in grew_at:
            self._below = float(losses["value"].iloc[-1]) < self._threshold()
