"""Training on differences: some of several candidates, or only what the model gets wrong.

Of k·B candidates B are trained on, chosen by their loss under the current model or at random; or all of
the plain batch is, with the loss on values that are predicted wrong. The contrast loss pulls apart what a
model says and what is so. What that costs is counted: a forward pass without gradient is not free.

What a sequence has to recall, its *answers*, are in a biography its values; in an inverse question, the
name (`Batch.answer`).
"""

from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Batch, Corpus, TokenKind
from interp.config import Config
from interp.errors import CheckpointError
from interp.model import TrainingPass
from interp.run import observation
from interp.training.parallel import Backward, Counted

SPLIT = "selection"
"""In the metrics: what training has cost until a step (`Costs`)."""
_RANDOM_STREAM = 0x73656C65
_MOST_ANSWERS = 128  # of a sequence: they are counted in 8 bits


@dataclass(frozen=True)
class Answers:
    """The answers of a batch, token by token.

    Attributes:
        row: The sequence of each token.
        position: The position that predicts it, the one before it.
        target: The token.
        answer: Which answer it is part of, counted through the batch.
        row_of: The sequence of each answer.
    """

    row: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    target: Int[Tensor, " token"]
    answer: Int[Tensor, " token"]
    row_of: Int[Tensor, " answer"]

    @classmethod
    def of(cls, batch: Batch, counted: Counted = None) -> "Answers":
        """All answers of a batch, without the tokens that do not count."""
        there = batch.answer[:, 1:] >= 0
        if counted is not None:
            there = there & counted[:, 1:]
        row, position = there.nonzero(as_tuple=True)
        number = row * _MOST_ANSWERS + batch.answer[row, position + 1].long()
        numbers, answer = number.unique(return_inverse=True)
        target = batch.tokens[row, position + 1]
        return cls(row, position, target, answer, numbers // _MOST_ANSWERS)

    def summed(self, of_tokens: Float[Tensor, " token"]) -> Float[Tensor, " answer"]:
        """The sum over the tokens of each answer."""
        return of_tokens.new_zeros(len(self.row_of)).index_add(0, self.answer, of_tokens)

    def predicted_wrong(self, logits: Float[Tensor, "token vocab"]) -> Bool[Tensor, " answer"]:
        """Which answers have a token that is not the one with the largest logit."""
        return self.summed((logits.argmax(dim=-1) != self.target).float()) > 0


@torch.no_grad()
def answer_losses(
    model: TransformerBridge,
    batch: Batch,
    *,
    pad_token: int,
    precision: str = "fp32",
    counted: Counted = None,
) -> Float[Tensor, " batch"]:
    """The attribute loss of each sequence: cross-entropy summed over an answer's tokens, its mean, in nats.

    Args:
        model: Any hooks on it take effect.
        batch: On the model's device.
        pad_token: As of `interp.model.training_loss`, like the rest.
        precision: See there.
        counted: Answers without a token that counts are left out; a sequence without answers has loss 0.
    """
    answers = Answers.of(batch, counted)
    done = TrainingPass(model, batch.tokens, pad_token=pad_token, precision=precision)
    logits = done.logits_at(answers.row, answers.position)
    losses = answers.summed(F.cross_entropy(logits, answers.target, reduction="none"))
    sums, counts = losses.new_zeros(2, len(batch)).index_add(
        1, answers.row_of, torch.stack([losses, torch.ones_like(losses)])
    )
    found: Tensor = sums / counts.clamp(min=1)
    return found


def difference_loss(
    model: TransformerBridge,
    batch: Batch,
    *,
    pad_token: int,
    precision: str = "fp32",
    counted: Counted = None,
    only_wrong: bool = False,
    contrast: float | None = None,
) -> tuple[Float[Tensor, ""], int]:
    """The training loss in which values that are predicted wrong have a part of their own, from one pass.

    For each value predicted wrong the contrast adds -log σ(β (log p(true) - log p(predicted))), in nats; p
    of a value is the product over its tokens, p(predicted) that of the likeliest token at each, with what
    precedes it given. The sum is divided by the number of tokens that count, as that of the loss is.

    Args:
        model: Any hooks on it take effect.
        batch: On the model's device.
        pad_token: As of `interp.model.training_loss`, like the rest.
        precision: See there.
        counted: See there.
        only_wrong: Only values that are predicted wrong count, with all of their tokens.
        contrast: β; no contrast by default.

    Returns:
        The loss, with gradient, and the number of values that it is on.
    """
    answers = Answers.of(batch, counted)
    done = TrainingPass(model, batch.tokens, pad_token=pad_token, precision=precision)
    with torch.set_grad_enabled(contrast is not None and torch.is_grad_enabled()):
        logits = done.logits_at(answers.row, answers.position)
    wrong = answers.predicted_wrong(logits.detach())
    if only_wrong:
        counted = torch.zeros_like(batch.tokens, dtype=torch.bool)
        counted[answers.row, answers.position + 1] = wrong[answers.answer]
    elif counted is None:
        counted = batch.kind != TokenKind.PADDING
    loss = done.loss(counted)
    if contrast is not None:
        true = logits.gather(1, answers.target[:, None])
        margin = answers.summed((true - logits.amax(dim=-1, keepdim=True))[:, 0])
        pulled = F.softplus(-contrast * margin) * wrong
        loss = loss + pulled.sum() / counted[:, 1:].sum().clamp(min=1)
    return loss, int(wrong.sum()) if only_wrong else len(wrong)


@dataclass
class Costs:
    """What training has cost so far.

    Attributes:
        examples: Sequences that were trained on.
        values: Values (answers) that the loss was on.
        forward_tokens: Tokens, padding included, that passed forward, for choosing or for training.
        backward_tokens: Tokens that passed backward.
    """

    examples: int = 0
    values: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0

    @property
    def arithmetic(self) -> int:
        """In tokens passing forward: one that passes backward counts as two."""
        return self.forward_tokens + 2 * self.backward_tokens

    def add(self, batch: Batch, values: int) -> None:
        """Counts a batch that was trained on."""
        self.examples += len(batch)
        self.values += values
        self.forward_tokens += batch.tokens.numel()
        self.backward_tokens += batch.tokens.numel()

    def observations(self, step: int) -> list[dict[str, Any]]:
        """The rows of the metrics: the counts, and `arithmetic`."""
        counts = {f.name: getattr(self, f.name) for f in fields(self)}
        counts["arithmetic"] = self.arithmetic
        return [observation(step, SPLIT, name, float(count)) for name, count in counts.items()]

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))

    @classmethod
    def parse(cls, text: str) -> "Costs":
        """The inverse of `str`.

        Raises:
            CheckpointError: it is none of these.
        """
        counts = text.split(" ")
        if len(counts) != len(fields(cls)) or not all(count.isdecimal() for count in counts):
            raise CheckpointError(f"the counts of selection are {text[:80]!r}")
        return cls(*map(int, counts))


class Selection:
    """Trains each step on what the settings (`config.selection`) select, and counts what it costs.

    Args:
        config: The run's settings.
        corpus: What it is trained on.
        model: The model that is trained.
        precision: "fp32" or "bf16".
        device: Where the model is.
    """

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        model: TransformerBridge,
        precision: str,
        device: torch.device,
    ) -> None:
        self.settings = config.selection
        self.size = config.training.batch_size
        self.costs = Costs()
        self._corpus, self._model, self._device = corpus, model, device
        self._numerics: Any = {"pad_token": corpus.tokenizer.pad_token_id, "precision": precision}

    @property
    def n_candidates(self) -> int:
        """How many candidates a step has."""
        return self.settings.candidates * self.size

    def chosen(self, candidates: Batch, step: int) -> Batch:
        """The candidates that are trained on, in the order they were drawn in.

        Of candidates with the same loss the ones drawn first are chosen.
        """
        if len(candidates) == self.size:
            return candidates
        if self.settings.kind == "random":
            generator = np.random.default_rng([_RANDOM_STREAM, self._corpus.seed, step])
            order = torch.from_numpy(generator.permutation(len(candidates)))
        else:
            largest = self.settings.kind == "largest_loss"
            losses = self._scores(candidates, step)
            order = torch.sort(losses, descending=largest, stable=True).indices
        return candidates.take(order[: self.size].sort().values)

    def _scores(self, candidates: Batch, step: int) -> Float[Tensor, " batch"]:
        found = []
        for part in candidates.split(self.size):
            counted = _on(self._corpus.counted(part, step), self._device)
            there = part.to(self._device)
            found.append(answer_losses(self._model, there, counted=counted, **self._numerics))
            self.costs.forward_tokens += part.tokens.numel()
        return torch.cat(found).cpu()

    def backward(self, candidates: Batch, step: int, plain: Backward) -> Float[Tensor, ""]:
        """Adds the gradient of a step's loss to the parameters, and returns that loss.

        Args:
            candidates: Those of the step.
            step: The step.
            plain: The backward pass of a batch with the plain loss.
        """
        batch = self.chosen(candidates, step)
        counted = self._corpus.counted(batch, step)
        only_wrong, contrast = self.settings.kind == "wrong_values", self.settings.contrast
        if not only_wrong and contrast is None:
            self.costs.add(batch, len(Answers.of(batch, counted).row_of))
            return plain(batch, counted)
        loss, values = difference_loss(
            self._model,
            batch.to(self._device),
            counted=_on(counted, self._device),
            only_wrong=only_wrong,
            contrast=contrast,
            **self._numerics,
        )
        loss.backward()
        self.costs.add(batch, values)
        return loss.detach()


def _on(counted: Counted, device: torch.device) -> Counted:
    return None if counted is None else counted.to(device)
