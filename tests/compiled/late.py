"""Compiled models in which a value is made after the name was read: by looking up, or by selecting.

People are one token each. Heads of layer 1 carry to where a value is predicted either who the person is,
a random direction, and MLP 1 has a neuron for each person and attribute (associative); or all that the
embedding says of the person, and MLP 1 has a neuron for each value, which fires if its attribute is asked
for (geometric, as in arXiv:2605.12426). Only the first token of a value is made.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus
from interp.compiled.attention import heads
from interp.compiled.facts import Knowledge
from interp.compiled.memory import first_mlp
from interp.compiled.neurons import Neurons, rows
from interp.compiled.plan import Plan, fact_name
from interp.compiled.spaces import Space
from interp.compiled.weights import state_dict
from interp.config import CompiledConfig, Config
from interp.model import hooked_transformer


@dataclass(frozen=True)
class _Wide(Plan):
    """A plan whose heads can carry everything that a name says."""

    @property
    def d_head(self) -> int:
        carried = sum(s.width for name, s in self.spaces.items() if name.endswith("there"))
        return max(super().d_head, carried)


def late_recall(
    config: Config, how: Literal["lookup", "selection"]
) -> tuple[TransformerBridge, Corpus]:
    """A model that knows the people, who are one token each, and its corpus."""
    corpus = Corpus.from_config(config)
    facts = Knowledge.of(corpus)
    geometric = CompiledConfig(variant="geometric")
    plan = Plan.of(facts, geometric, config.model.n_ctx, config.seed_of("model"))
    sources = (
        [plan.spaces["name"]] if how == "lookup" else [plan.fact(a, 0) for a in plan.attributes]
    )
    for source in sources:
        plan.spaces[f"{source.name} there"] = replace(
            source, name=f"{source.name} there", start=plan.d_stream
        )
    wide = _Wide(**{field.name: getattr(plan, field.name) for field in fields(Plan)})
    d_model = wide.n_heads * wide.d_head
    every_head = heads(wide)
    for head in every_head:
        if head.role == "recalls":
            head.W_V[:], head.W_O[:], head._used = 0, 0, 0
            for source in sources:
                head.carry(source, wide.spaces[f"{source.name} there"])
    mlps = first_mlp(wide, d_model), _second_mlp(wide, d_model, how)
    d_mlp = max(map(len, mlps))
    config = config.with_settings(
        model={
            "n_layers": 2, "d_model": d_model, "n_heads": wide.n_heads, "d_mlp": d_mlp,
            "normalization": None, "positions": "standard", "act_fn": "relu", "recurrence": None,
        }
    )  # fmt: skip
    if how == "lookup":  # embeddings say who somebody is, and nothing else
        wide = replace(wide, settings=CompiledConfig(variant="local"))
    model = hooked_transformer(config, corpus.tokenizer)
    model.load_state_dict(state_dict(wide, every_head, mlps, d_mlp), strict=True)
    return model.eval(), corpus


def _second_mlp(plan: Plan, d_model: int, how: str) -> Neurons:
    neurons, facts = Neurons(1, d_model), plan.facts
    asked, output = plan.spaces["asked"], plan.spaces["output"]
    for attribute in plan.attributes:
        told: list[tuple[Space, int, int]] = []  # in which space, what, which token follows from it
        if how == "lookup":
            space = plan.spaces["name there"]
            told = [
                (space, facts.names[person][0], facts.values[person][attribute][0])
                for person in range(facts.known)
            ]
        else:
            space = plan.spaces[f"{fact_name(facts, attribute, 0)} there"]
            told = [(space, token, token) for token in space.labels]
        reads, writes = rows(len(told), d_model), rows(len(told), d_model)
        for row, (space, label, token) in enumerate(told):
            reads[row, space.dims] = space.code(label)
            writes[row, output.dims] = output.code(token)
        reads[:, asked.start + attribute] = 1.0
        if "step" in plan.spaces:  # later tokens are not made
            reads[:, plan.spaces["step"].dims] = -2.0
        neurons.add_gates("late", reads, np.full(len(told), 2.0), space.overlap, writes)
    return neurons
