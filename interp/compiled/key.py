"""The key of a compiled model: what each head, neuron and direction is for. The ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.compiled.attention import Head
from interp.compiled.memory import RECALLING_ROLES
from interp.compiled.neurons import COLUMNS, Neurons
from interp.compiled.plan import Plan, fact_name
from interp.compiled.spaces import Space
from interp.compiled.weights import embedding, unembedding
from interp.errors import ArgumentError, require_known
from interp.files import write_json, write_text
from interp.tables import for_spreadsheets

TABLES = ("heads", "neurons", "spaces", "directions", "facts")


@dataclass(frozen=True)
class Key:
    """What is where in a compiled model.

    Attributes:
        heads: A row a head: `layer`, `head`, `role` ("copies", "recalls", "idle", "unused"), `attends`,
            `back` (of a head that copies, how far back it looks), `attribute`, `reads`, `writes` (spaces).
        neurons: A row a neuron: `layer`, `neuron`, `role`; `individual` of "person" and "idle" ones;
            `attribute` and `token` (which of the value, from 0) of those that ask; `token` and `says_token`
            of those that spell and erase; `n_read`: how many things it needs at once.
        spaces: A row a space of the residual stream: `space`, `says`, `start`, `stop` (dimensions), `overlap`
            (largest inner product of two of its directions), `written_by`, `read_by`.
        directions: A row a direction: `space`, `label`, `text`, `row` (of `vectors[space]`).
        facts: Where facts are: `attribute`, `token` (which of the value), `space`, `held_by`, `layer`,
            `position` (where the fact is first in the stream), `head` (of layer 1, that recalls it).
        vectors: By space, the directions of its labels in the residual stream, [label, d_model].
    """

    heads: pd.DataFrame
    neurons: pd.DataFrame
    spaces: pd.DataFrame
    directions: pd.DataFrame
    facts: pd.DataFrame
    vectors: dict[str, Float[np.ndarray, "label d_model"]]

    @classmethod
    def of(cls, plan: Plan, heads: Sequence[Head], mlps: Sequence[Neurons], d_mlp: int) -> "Key":
        """The key of what has been put together."""
        neurons = pd.concat([mlp.table(d_mlp) for mlp in mlps], ignore_index=True)
        neurons = neurons.reindex(columns=list(COLUMNS))
        text = plan.facts.token_text
        says = [text[int(one)] if pd.notna(one) else "" for one in neurons["says_token"]]
        neurons["says_token"] = pd.Series(says, dtype="object")
        for name in ("individual", "token", "n_read"):
            neurons[name] = neurons[name].astype("Int64")
        neurons["attribute"] = (
            neurons["attribute"].astype("object").where(neurons["attribute"].notna(), "")
        )
        d_model = plan.n_heads * plan.d_head
        return cls(
            _heads_table(plan, heads), neurons, _spaces_table(plan, heads, mlps, d_mlp), _directions(plan),
            _facts(plan), {name: _vectors(space, d_model) for name, space in plan.spaces.items()},
        )  # fmt: skip

    def direction(self, space: str, label: str) -> Float[np.ndarray, " d_model"]:
        """The unit vector of the residual stream that says something.

        Args:
            space: A space, as `spaces` names it.
            label: What it says, as the column `text` of `directions` has it.

        Raises:
            ArgumentError: there is no such space, or it says nothing of the kind.
        """
        require_known([space], list(self.vectors), "space")
        own = self.directions[self.directions["space"] == space]
        found = own.loc[own["text"] == str(label), "row"]
        if found.empty:
            raise ArgumentError(
                f"The space {space!r} has no direction for {str(label)[:60]!r}; it has {len(own)}, such as "
                f"{', '.join(map(repr, own['text'][:4]))}."
            )
        vector: Float[np.ndarray, " d_model"] = self.vectors[space][int(found.iloc[0])]
        return vector

    def write(self, folder: Path) -> None:
        """Writes the tables as CSV, and what else there is to know of them as JSON."""
        for name in TABLES:
            text = for_spreadsheets(getattr(self, name)).to_csv(index=False)
            write_text(folder / f"{name}.csv", text)
        vectors = {
            name: {"start": _start(own), "codes": np.round(_own_dims(own), 7).tolist()}
            for name, own in self.vectors.items()
            if not _is_axes(own)
        }
        write_json(folder / "vectors.json", vectors)


def _heads_table(plan: Plan, heads: Sequence[Head]) -> pd.DataFrame:
    rows = []
    for head in heads:
        attribute = "" if head.attribute is None else plan.facts.attributes[head.attribute]
        rows.append(
            {"layer": head.layer, "head": head.head, "role": head.role, "attends": head.attends,
             "back": head.back, "attribute": attribute,
             "reads": ", ".join(source for source, _ in head.moves),
             "writes": ", ".join(target for _, target in head.moves)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["back"] = table["back"].astype("Int64")
    return table


def _spaces_table(
    plan: Plan, heads: Sequence[Head], mlps: Sequence[Neurons], d_mlp: int
) -> pd.DataFrame:
    """Who writes and reads each space, read off the matrices and not off the plan."""
    read: dict[str, list[str]] = {name: [] for name in plan.spaces}
    written: dict[str, list[str]] = {name: [] for name in plan.spaces}

    def note(found: dict[str, list[str]], weights: np.ndarray, who: str) -> None:
        used = np.abs(weights).max(axis=0) > 0
        for name, space in plan.spaces.items():
            if used[space.dims].any():
                found[name].append(who)

    d_model = plan.n_heads * plan.d_head
    note(written, embedding(plan, d_model), "embedding")
    written["position"].append("positions")
    for layer, mlp in enumerate(mlps):
        for head in (head for head in heads if head.layer == layer):
            who = f"head {head.layer}.{head.head}"
            for side in ("Q", "K", "V"):
                note(read, getattr(head, f"W_{side}").T, f"{who} {side}")
            note(written, head.W_O, who)
        reads, _, writes = mlp.matrices(d_mlp)
        note(read, reads, f"MLP {layer}")
        note(written, writes, f"MLP {layer}")
    note(read, unembedding(plan, d_model), "unembedding")
    return pd.DataFrame(
        {"space": name, "says": space.says, "start": space.start, "stop": space.stop,
         "overlap": space.overlap, "written_by": ", ".join(written[name]),
         "read_by": ", ".join(read[name])}
        for name, space in plan.spaces.items()
    )  # fmt: skip


def _directions(plan: Plan) -> pd.DataFrame:
    text = plan.facts.token_text
    special = {-1: "end of a sentence", -2: "a token of a name"}
    by_token = ("word", "name", "output", "recalled", "fact", "unread", "carried")
    rows = []
    for name, space in plan.spaces.items():
        tokens = name.split(" ")[0] in by_token and name != "name end"
        for row, label in enumerate(space.labels):
            if tokens:
                token = int(str(label))
                said = special.get(token, text[token] if token >= 0 else "")
            else:
                said = " ".join(map(str, label)) if isinstance(label, tuple) else str(label)
            rows.append({"space": name, "label": str(label), "text": said, "row": row})
    return pd.DataFrame(rows)


def _facts(plan: Plan) -> pd.DataFrame:
    held = {"local": RECALLING_ROLES[0], "distributed": RECALLING_ROLES[1]}.get(
        plan.settings.variant or "", "embedding"
    )
    where = "embedding" if held == "embedding" else "MLP 0"
    return pd.DataFrame(
        {"attribute": plan.facts.attributes[attribute], "token": step,
         "space": fact_name(plan.facts, attribute, step), "held_by": held, "layer": where,
         "position": "last name token", "head": attribute}
        for attribute in plan.attributes
        for step in range(plan.facts.longest(attribute))
    )  # fmt: skip


def _vectors(space: Space, d_model: int) -> Float[np.ndarray, "label d_model"]:
    found = np.zeros((len(space.labels), d_model))
    found[:, space.dims] = space.codes
    return found


def _is_axes(vectors: np.ndarray) -> bool:
    return bool(((vectors != 0).sum(axis=1) == 1).all())


def _start(vectors: np.ndarray) -> int:
    return int(np.flatnonzero(np.abs(vectors).max(axis=0))[0])


def _own_dims(vectors: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(np.abs(vectors).max(axis=0))
    return vectors[:, used[0] : used[-1] + 1]
