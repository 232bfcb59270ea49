"""Value vectors: what an MLP has to write at a subject's token so that the model says the new value.

As in ROME (Meng et al. 2022, section 3.1): weights stay as they are, and a residual δ that is added to the
output is found by gradient descent on -log p(new value) + KL(p before ‖ p) at what is to stay + the
squared length of δ, in steps that do not depend on the basis. A value of several tokens counts whole, each
token given those before. Subjects are independent of each other; several are computed at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from interp.errors import ArgumentError, whole_number
from interp.model import logits_at, measuring, of_this_thread, require_numbers
from interp.writing.costs import Arithmetic
from interp.writing.rewrites import Rewrites

_SUBJECTS = 16  # in a pass


@dataclass(frozen=True)
class TargetSettings:
    """How value vectors are found.

    Attributes:
        n_steps: Steps of the descent at most.
        lr: Its learning rate: how far a residual moves in a step, as a part of |output|.
        kl: Weight of the KL divergence at what is to stay.
        decay: Weight of |δ|² / |output|².
        largest: |δ| at most, as a multiple of |output|.
        enough: A subject is done when the loss of its new values, in nats a text, is below this.
    """

    n_steps: int = 80
    lr: float = 0.05
    kl: float = 1.0
    decay: float = 0.01
    largest: float = 4.0
    enough: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_steps", whole_number(self.n_steps, "n_steps", 1))
        for name in ("lr", "kl", "decay", "largest", "enough"):
            given = getattr(self, name)
            good = isinstance(given, Real) and not isinstance(given, bool)
            if not good or not given >= 0 or (name in ("lr", "largest") and given == 0):
                raise ArgumentError(
                    f"{name}={given!r}: give a number above 0 (kl, decay, enough: or 0)."
                )


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be added for each subject.

    Attributes:
        residuals: δ of each place, in float64 on the CPU.
        losses: Of each subject, -log p(new values) with δ added, in nats, mean over its texts.
        divergences: Of each subject, the mean KL divergence at what is to stay, in nats.
        costs: What it took.
    """

    residuals: Float[Tensor, "place d_model"]
    losses: Float[Tensor, " subject"]
    divergences: Float[Tensor, " subject"]
    costs: Arithmetic = field(default_factory=Arithmetic)


def find_targets(
    model: TransformerBridge,
    rewrites: Rewrites,
    positions: Sequence[str],
    hook: str,
    lengths: Float[Tensor, " place"],
    settings: TargetSettings,
) -> Targets:
    """The residuals that have a model say the new values, where `hook` shows the output.

    Args:
        model: It is left as it was.
        rewrites: What is to be said.
        positions: The kinds of token at which residuals are added.
        hook: The hook point of what they are added to.
        lengths: Of each place, the length of the output there.
        settings: See `TargetSettings`.

    Raises:
        ArgumentError: what is written there does not reach the predictions.
    """
    n, places = len(rewrites.subjects), rewrites.places(positions)
    parts = [
        _Search(
            model, rewrites.of_subjects(chosen), positions, hook, lengths[places.of_subjects(chosen)],
            settings,
        ).run()
        for chosen in (
            list(range(n))[start : start + _SUBJECTS] for start in range(0, n, _SUBJECTS)
        )
    ]  # fmt: skip
    costs = Arithmetic()
    for part in parts:
        costs = costs + part.costs
    return Targets(
        torch.cat([part.residuals for part in parts]), torch.cat([part.losses for part in parts]),
        torch.cat([part.divergences for part in parts]), costs,
    )  # fmt: skip


class _Descent:
    """Adam with one second moment for each residual in place of one for each of its entries.

    A residual stream has no entries of its own: a step of the same length goes along the mean gradient,
    however it is turned. With a second moment an entry all entries move alike, and in a compiled model, whose
    facts are a few entries among a thousand, what is not to change is moved as much as what is.
    """

    _KEEP_MEAN, _KEEP_SQUARE, _SMALL = 0.9, 0.999, 1e-8

    def __init__(self, theta: Float[Tensor, "place d_model"], lr: float) -> None:
        self.lr, self.n = lr, 0
        self.mean = torch.zeros_like(theta, requires_grad=False)
        self.square = self.mean[:, :1].clone()

    def step(self, slope: Float[Tensor, "place d_model"]) -> Float[Tensor, "place d_model"]:
        """What is to be added, given the gradient."""
        self.n += 1
        self.mean.lerp_(slope, 1 - self._KEEP_MEAN)
        self.square.lerp_(slope.square().mean(dim=1, keepdim=True), 1 - self._KEEP_SQUARE)
        mean = self.mean / (1 - self._KEEP_MEAN**self.n)
        square = self.square / (1 - self._KEEP_SQUARE**self.n)
        return -self.lr * mean / (square.sqrt() + self._SMALL)


class _Search:
    """The descent for a few subjects; one that is done keeps its residual, and its texts are left out."""

    def __init__(
        self, model: TransformerBridge, rewrites: Rewrites, positions: Sequence[str], hook: str,
        lengths: Tensor, settings: TargetSettings,
    ) -> None:  # fmt: skip
        self.model, self.hook, self.settings = model, hook, settings
        weight = next(model.parameters())
        self.device = weight.device
        self.tokens = rewrites.texts.tokens.to(self.device)
        self.subject = rewrites.subject.to(self.device)
        self.n = len(rewrites.subjects)
        self.n_texts = torch.bincount(self.subject, minlength=self.n).float()
        asks = (rewrites.wanted >= 0).any(1).to(self.device)
        self.n_asking = torch.bincount(self.subject[asks], minlength=self.n).float().clamp(min=1)
        places = rewrites.places(positions)
        self.place, self.of_place = places.of_token.to(self.device), places.subject.to(self.device)
        self.n_places = torch.bincount(self.of_place, minlength=self.n).float().clamp(min=1)
        self.wanted = (rewrites.wanted >= 0).to(self.device)
        self.kept = rewrites.kept.to(self.device)
        self.unit = (lengths / model.cfg.d_model**0.5).float().to(self.device)[:, None]
        self.costs = Arithmetic()

    def run(self) -> Targets:
        settings = self.settings
        theta = torch.zeros(
            len(self.unit), self.model.cfg.d_model, device=self.device, requires_grad=True
        )
        largest = settings.largest * self.model.cfg.d_model**0.5
        descent = _Descent(theta, settings.lr)
        best = torch.zeros_like(theta, requires_grad=False)
        losses, apart = torch.zeros(2, self.n, device=self.device)
        zeros = torch.zeros(self.n, device=self.device)
        lowest = torch.full((self.n,), torch.inf, device=self.device)
        active = torch.ones(self.n, dtype=torch.bool, device=self.device)
        with measuring(self.model), torch.enable_grad():
            before = self._before()
            for step in range(settings.n_steps + 1):
                loss, divergence = self._loss(theta, active, before)
                length = (
                    zeros.index_add(0, self.of_place, theta.square().mean(dim=1)) / self.n_places
                )
                total = loss + settings.kl * divergence + settings.decay * length
                with torch.no_grad():
                    better = active & (total < lowest)
                    lowest[better] = total[better]
                    best = torch.where(better[self.of_place, None], theta, best)
                    losses[better], apart[better] = loss[better], divergence[better]
                    active = active & (loss >= settings.enough)
                if step == settings.n_steps or not bool(active.any()):
                    break
                (slope,) = torch.autograd.grad(total[active].sum(), [theta])
                if step == 0 and not bool(slope.any()):
                    raise ArgumentError(
                        f"What is written at {self.hook} at these tokens does not reach the predictions, "
                        "as no later layer reads it there. Choose an earlier layer, or 'predicts value'."
                    )
                with torch.no_grad():
                    theta += descent.step(slope)
                    theta *= (largest / theta.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(
                        max=1
                    )
        residuals = (best * self.unit).double().cpu()
        return Targets(residuals, losses.double().cpu(), apart.double().cpu(), self.costs)

    def _read(self, rows: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of tokens of some rows: the row among these, the position that predicts it, the token."""
        row, place = which[rows][:, 1:].nonzero(as_tuple=True)
        return row, place, self.tokens[rows][row, place + 1]

    @torch.no_grad()
    def _before(self) -> Tensor:
        """The log-probabilities at all that is to stay, by row and place."""
        row, place, _ = self._read(torch.arange(len(self.tokens), device=self.device), self.kept)
        if not len(row):
            return torch.zeros(0, device=self.device)
        self.costs = self.costs + Arithmetic(forward_tokens=self.tokens.numel())
        logits = logits_at(self.model, self.tokens, row, place)
        require_numbers(logits, "logits")
        return logits.float().log_softmax(-1)

    def _loss(self, theta: Tensor, active: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Of each subject the loss of its new values in nats a text, and the mean divergence of the rest."""
        rows = active[self.subject].nonzero()[:, 0]
        tokens, subject = self.tokens[rows], self.subject[rows]
        of_token = self.place[rows]
        row, place = (of_token >= 0).nonzero(as_tuple=True)
        added = (theta * self.unit)[of_token[row, place]]

        def add(x: Tensor, **_: Any) -> Tensor:
            change = x.new_zeros(*tokens.shape, added.shape[1])
            return x + change.index_put((row, place), added.to(x.dtype)).view(x.shape)

        new_row, new_place, target = self._read(rows, self.wanted)
        old_row, old_place, _ = self._read(rows, self.kept)
        asked = torch.cat([new_row, old_row]), torch.cat([new_place, old_place])
        with self.model.hooks(fwd_hooks=of_this_thread([(self.hook, add)])):
            logits = logits_at(self.model, tokens, *asked)
        self.costs = self.costs + Arithmetic(
            examples=len(rows), forward_tokens=tokens.numel(), activation_tokens=tokens.numel()
        )
        log_p = logits.float().log_softmax(-1)
        new, old = log_p[: len(new_row)], log_p[len(new_row) :]
        nats = -new.gather(1, target[:, None])[:, 0]
        zeros = theta.new_zeros(self.n)
        loss = zeros.index_add(0, subject[new_row], nats) / self.n_asking
        if not len(old_row):
            return loss, zeros
        was = before[active[self.subject[self._row_of_kept()]]]
        apart = (was.exp() * (was - old)).sum(-1)
        count = torch.bincount(subject[old_row], minlength=self.n).clamp(min=1)
        return loss, zeros.index_add(0, subject[old_row], apart) / count

    def _row_of_kept(self) -> Tensor:
        return self.kept[:, 1:].nonzero(as_tuple=True)[0]
