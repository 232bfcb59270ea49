"""Pairs of runs for interventions: one that is patched, and one that activations come from."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from interp.biographies import Spans
from interp.errors import ArgumentError


@dataclass(frozen=True)
class Pairs:
    """Prompts in pairs: the *base* is run with an activation replaced by that of the *source*.

    In the words of TransformerLens' `patching` functions, the base is the corrupted run and the
    source the clean one when the question is what restores the answer; exchange them (`flipped`)
    when it is what breaks it.

    Attributes:
        base: Token ids of the runs that are patched, padded on the right.
        source: Token ids of the runs that activations come from, padded on the right.
        spans: What the tokens of the base are.
        source_spans: What the tokens of the source are.
        source_position: For every position of the base the one in the source that corresponds to
            it, -1 where none does.
        read: The position of the base whose logits are read: the one that predicts the answer.
        source_read: The same in the source.
        base_answer: The token that is right in the base.
        source_answer: The token that is right in the source.
    """

    base: Int64[Tensor, "pair position"]
    source: Int64[Tensor, "pair source_position"]
    spans: Spans
    source_spans: Spans
    source_position: Int64[Tensor, "pair position"]
    read: Int64[Tensor, " pair"]
    source_read: Int64[Tensor, " pair"]
    base_answer: Int64[Tensor, " pair"]
    source_answer: Int64[Tensor, " pair"]

    def __post_init__(self) -> None:
        n, width = self.base.shape
        if not n:
            raise ArgumentError("There are no pairs; give at least one.")
        shapes = {f.name: tuple(getattr(self, f.name).shape) for f in fields(self)[4:]}
        shapes["spans"] = tuple(self.spans.kind.shape)
        shapes["source_spans"] = tuple(self.source_spans.kind.shape)
        expected = dict.fromkeys(shapes, (n,)) | {
            "source_position": (n, width),
            "spans": (n, width),
            "source_spans": (n, self.source.shape[1]),
        }
        for name, shape in shapes.items():
            if shape != expected[name] or len(self.source) != n:
                raise ArgumentError(
                    f"{name} has the shape {shape}, expected {expected[name]}: there are {n} bases "
                    f"of {width} tokens and {len(self.source)} sources of {self.source.shape[1]}."
                )
        source_width = self.source.shape[1]
        for name, size in (("read", width), ("source_read", source_width)):
            positions: Tensor = getattr(self, name)
            wrong = positions[(positions < 0) | (positions >= size)]
            if len(wrong):
                raise ArgumentError(
                    f"{name} holds the position {int(wrong[0])}; there are positions 0 to {size - 1}."
                )
        if (self.source_position >= source_width).any():
            raise ArgumentError(
                f"source_position holds {int(self.source_position.max())}; the source has positions "
                f"0 to {source_width - 1} (-1: none corresponds)."
            )

    def __len__(self) -> int:
        return len(self.base)

    def to(self, device: torch.device | str) -> "Pairs":
        """The same pairs on another device."""
        return Pairs(*(part.to(device) for part in self._parts()))

    def __getitem__(self, rows: slice | Bool[Tensor, " pair"]) -> "Pairs":
        """Some of the pairs; widths stay as they are."""
        chosen: list[Any] = [
            Spans(p.kind[rows], p.sentence[rows]) if isinstance(p, Spans) else p[rows]
            for p in self._parts()
        ]
        return Pairs(*chosen)

    def _parts(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def differ(self) -> Bool[Tensor, " pair"]:
        """Which pairs have different answers: only there can a prediction follow a swap."""
        return self.base_answer != self.source_answer

    def flipped(self) -> "Pairs":
        """Base and source exchanged; of positions with one counterpart the last is its counterpart."""
        n, width = self.source.shape
        back = torch.full((n, width + 1), -1, device=self.source.device)
        place = torch.arange(self.base.shape[1], device=back.device).expand_as(self.base)
        there = self.source_position.where(self.source_position >= 0, width)
        back.scatter_reduce_(1, there, place, "amax")
        return Pairs(
            self.source, self.base, self.source_spans, self.spans, back[:, :-1],
            self.source_read, self.read, self.source_answer, self.base_answer,
        )  # fmt: skip

    @classmethod
    def of_tokens(
        cls,
        base: Int64[Tensor, "pair position"],
        source: Int64[Tensor, "pair position"],
        spans: Spans,
        read: int | Sequence[int] | Int64[Tensor, " pair"],
        base_answer: int | Sequence[int] | Int64[Tensor, " pair"],
        source_answer: int | Sequence[int] | Int64[Tensor, " pair"],
    ) -> "Pairs":
        """Pairs of any prompts that correspond position by position: for models from elsewhere.

        Spans say what the tokens are, in both (`Spans.from_lists` makes them); on them depend the
        positions that can be named. The position that is read and the answers are of all pairs or of each.
        """
        if base.shape != source.shape:
            raise ArgumentError(
                f"base has the shape {tuple(base.shape)} and source {tuple(source.shape)}; prompts "
                "that correspond position by position have the same. Give Pairs source_position "
                "where they do not."
            )

        def of_each(given: int | Sequence[int] | Tensor) -> Tensor:
            whole = torch.as_tensor(given, dtype=torch.int64, device=base.device)
            return whole.expand(len(base)) if whole.ndim == 0 else whole

        places = torch.arange(base.shape[1], device=base.device).expand_as(base)
        position = of_each(read)
        return cls(
            base, source, spans, spans, places, position, position,
            of_each(base_answer), of_each(source_answer),
        )  # fmt: skip
