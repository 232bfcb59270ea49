"""The updates of a training: the batch of a step, its gradient, and the optimizer's step."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch, Corpus
from interp.config import Config
from interp.model import has_fused_forward, training_loss
from interp.training.graphs import GraphedSteps
from interp.training.parallel import Backward, Counted, Ranks
from interp.training.selection import Costs, Selection


class Updates:
    """Makes the updates of a model, once it is known with which optimizer (`begin`).

    Args:
        config: The run's settings.
        corpus: What it is trained on.
        model: The model.
        precision: "fp32" or "bf16".
        ranks: The processes that train it.
        patched: Whether its attention is patched.
    """

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        model: TransformerBridge,
        precision: str,
        ranks: Ranks,
        patched: bool,
    ) -> None:
        self._config, self._corpus, self._model = config, corpus, model
        self._precision, self._ranks, self._patched = precision, ranks, patched
        self._backward: Backward
        self._optimizer: torch.optim.AdamW
        self._graphed: GraphedSteps | None = None
        self._selection: Selection | None = None
        if config.selection.on:
            self._selection = Selection(config, corpus, model, precision, ranks.device)

    def draw(self, step: int) -> Batch:
        """The batch of a step, or its candidates: a function of the step."""
        size = self._config.training.batch_size
        return self._corpus.batch(step, self._selection.n_candidates if self._selection else size)

    def begin(self, optimizer: torch.optim.AdamW) -> None:
        """Has all processes train the weights that are the trained ones now, which are this optimizer's."""
        self._optimizer = optimizer
        self._backward = self._ranks.share(self._model, self._loss)
        self._graphed = None
        whole = self._ranks.count == 1 and not self._patched and self._selection is None
        if self._ranks.device.type == "cuda" and whole and has_fused_forward(self._model):
            self._graphed = GraphedSteps(self._whole_step, self._ranks.device)

    def make(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """Makes the update of a step on what `draw` gave; the loss before it."""
        if self._selection is not None:
            loss = self._selection.backward(batch, step, self._backward)
            self._descend()
            return loss
        counted = self._corpus.counted(batch, step)
        if self._graphed is not None:
            return self._graphed(batch.tokens, counted)
        loss = self._backward(batch, counted)
        self._descend()
        return loss

    def costs(self, step: int) -> list[dict[str, Any]]:
        """What the updates before a step have cost, as rows of the metrics; none without selection."""
        return self._selection.costs.observations(step) if self._selection else []

    @property
    def state(self) -> str | None:
        """What an unfinished run needs beside weights and optimizer to go on; None if nothing."""
        return str(self._selection.costs) if self._selection else None

    def load(self, state: str | None) -> None:
        """The inverse of `state`; a CheckpointError if it is none."""
        if self._selection is not None:
            self._selection.costs = Costs.parse(state or "")

    def _whole_step(self, tokens: Int[Tensor, "batch position"], counted: Counted) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)  # should a graph of it have come to nothing
        loss = self._loss(tokens, counted)
        loss.backward()
        self._descend()
        return loss.detach()

    def _descend(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _loss(self, tokens: Int[Tensor, "batch position"], counted: Counted) -> Float[Tensor, ""]:
        pad_token = self._corpus.tokenizer.pad_token_id
        return training_loss(
            self._model, tokens, pad_token=pad_token, precision=self._precision, counted=counted
        )
