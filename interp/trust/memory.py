"""Marks of measures of the memory: keys, values, their agreement, and probes."""

from dataclasses import replace

import pandas as pd
import torch

from interp.biographies import Wordings
from interp.compiled import CompiledRecall
from interp.memory import (
    CachedActivations,
    FactLabels,
    cache_activations,
    draw_batches,
    key_measures,
    probe_accuracies,
    promoted_logits,
    value_measures,
)
from interp.trust.circuit import (
    LAST_NAME,
    VALUE,
    fact_layers,
    known_people,
    read_once,
    recalling_heads,
)
from interp.trust.contract import Mark, Measure

_LEAST_SELECTIVITY = 0.05
_LEAST_AGREEMENT = 0.25
_SELECTIVE = ("person", "idle", "random feature")
_DRAWS: dict[Wordings, range] = {"train": range(3), "evaluation": range(2)}
WORDINGS: tuple[Wordings, Wordings] = ("train", "evaluation")
"""Of what probes learn from, and of what they are tested on."""


def read_of(
    compiled: CompiledRecall, wordings: Wordings, people: slice | None = None
) -> CachedActivations:
    """What the model computes of some people, the known ones by default."""
    people = slice(0, known_people(compiled)) if people is None else people

    def read() -> CachedActivations:
        batches = draw_batches(compiled.corpus, people, wordings, _DRAWS[wordings])
        return cache_activations(compiled.model, batches)

    return read_once(compiled, (wordings, people.start, people.stop), read)


def first_attribute(compiled: CompiledRecall) -> FactLabels:
    """Who has which value of the first attribute: probes of all would take six times as long."""
    labels, name = FactLabels.of(compiled.corpus), compiled.corpus.attributes[0]
    return FactLabels({name: labels.relations[name]}, labels.namesakes)


def of_first_attribute(cache: CachedActivations) -> CachedActivations:
    """Of what was read, the sentences that tell the first attribute."""
    return replace(
        cache,
        templates=cache.templates[..., :1],
        residual={site: x[:, :1] for site, x in cache.residual.items()},
        neurons={layer: x[:, :1] for layer, x in cache.neurons.items()},
    )


def _keys(compiled: CompiledRecall) -> Mark:
    neurons = compiled.key.neurons.query("role == 'person'")
    built = set(zip(neurons["layer"], neurons["neuron"], neurons["individual"], strict=True))
    cache, found = read_of(compiled, "evaluation"), set()
    place = cache.positions.index(LAST_NAME)
    for layer, read in cache.neurons.items():
        active = read[place].nanmean(dim=(0, 1))
        top = active.topk(2, dim=0)
        own = (top.values[0] > 0) & (top.values[0] > 2 * top.values[1])
        chosen = own.nonzero()[:, 0].tolist()
        found |= {(layer, neuron, int(top.indices[0, neuron])) for neuron in chosen}
    return Mark(built, found)


def _selectivity(compiled: CompiledRecall) -> Mark:
    table = key_measures(compiled.corpus, read_of(compiled, "evaluation"))
    own = table[(table["metric"] == "selectivity") & (table["position"] == LAST_NAME)]
    own = own.set_index("layer")
    beyond = own["value"] - own["control"]
    neurons = compiled.key.neurons
    telling = neurons["role"].isin(_SELECTIVE).groupby(neurons["layer"]).mean()
    error = float((own["value"] - telling).abs().mean())
    found = set(beyond[beyond >= _LEAST_SELECTIVITY].index)
    return Mark(fact_layers(compiled), found, error, "selectivity, absolute")


def _values(compiled: CompiledRecall) -> Mark | None:
    neurons = compiled.key.neurons.query("role in ('person', 'idle')")
    persons = neurons[neurons["role"] == "person"]
    if persons.empty:
        return None
    corpus = compiled.corpus
    built = {
        (int(neuron), corpus.value_tokens(attribute)[value][0])
        for neuron, person in zip(persons["neuron"], persons["individual"], strict=True)
        for attribute, value in zip(
            corpus.attributes, corpus.population.values[person], strict=True
        )
        if value >= 0
    }
    promoted = promoted_logits(compiled.model, 0, "attention")
    rows = torch.tensor([int(neuron) for neuron in neurons["neuron"]])
    own = promoted[rows]
    most = own.amax(dim=1, keepdim=True)
    row, token = ((own >= most / 2) & (most > 0)).nonzero(as_tuple=True)
    return Mark(built, set(zip(rows[row].tolist(), token.tolist(), strict=True)))


def _agreement(compiled: CompiledRecall, metric: str) -> Mark:
    table = value_measures(compiled.model, compiled.corpus, read_of(compiled, "evaluation"))
    own = table[(table["metric"] == metric) & (table["attribute"] == "all")]
    own = own.set_index(["layer", "position", "path"])
    beyond = own["value"] - own["control"]
    built = {(layer, LAST_NAME, "attention") for layer in fact_layers(compiled)}
    errors = [abs(1 - float(own["value"][cell])) for cell in built]
    error = sum(errors) / len(errors) if errors else None
    found = set(beyond[beyond >= _LEAST_AGREEMENT].index)
    return Mark(built, found, error, "rank of one's own value, below the first, as a share")


def _layer_agreement(compiled: CompiledRecall) -> Mark:
    return _agreement(compiled, "layer_agreement")


def _neuron_agreement(compiled: CompiledRecall) -> Mark:
    return _agreement(compiled, "agreement")


def _probe_sites(compiled: CompiledRecall) -> Mark:
    train, test = (of_first_attribute(read_of(compiled, one)) for one in WORDINGS)
    table = probe_accuracies(first_attribute(compiled), train, test)
    own = table[table["attribute"] == "all"]
    recalled = {layer for layer, _ in recalling_heads(compiled).values()}
    built: set[tuple[str, int, str]] = set()
    for layer in recalled:
        built |= {("resid_mid", layer, VALUE), ("resid_post", layer, VALUE)}
        before = range(max(fact_layers(compiled), default=-1), layer)
        built |= {("resid_post", one, LAST_NAME) for one in before if one >= 0}
        if not fact_layers(compiled):
            built |= {("resid_pre", 0, LAST_NAME)}
            built |= {("resid_mid", one, LAST_NAME) for one in range(layer)}
    cells = zip(own["site"], own["layer"], own["position"], _halfway(own), strict=True)
    return Mark(built, {(site, layer, at) for site, layer, at, is_read in cells if is_read})


def _probe_spaces(compiled: CompiledRecall) -> Mark:
    """Probes of parts of the stream at the last name token: one space at a time."""
    attribute = compiled.corpus.attributes[0]
    spaces, facts = compiled.key.spaces.set_index("space"), compiled.key.facts
    caches = (of_first_attribute(read_of(compiled, one)) for one in WORDINGS)
    train, test = (_by_space(cache, spaces) for cache in caches)
    table = probe_accuracies(first_attribute(compiled), train, test)
    own = table[(table["attribute"] == "all") & (table["position"] == LAST_NAME)]
    holding = facts.loc[(facts["attribute"] == attribute) & (facts["token"] == 0), "space"]
    built = {space for space in holding if spaces.loc[space, "read_by"]}
    return Mark(built, set(own.loc[_halfway(own), "site"]))


def _by_space(cache: CachedActivations, spaces: pd.DataFrame) -> CachedActivations:
    """What layer 0 leaves in the stream, as a site for each space."""
    stream = cache.residual["resid_post", 0]
    limits = zip(map(str, spaces.index), spaces["start"], spaces["stop"], strict=True)
    return replace(cache, residual={(name, 0): stream[..., a:b] for name, a, b in limits})


def _halfway(table: pd.DataFrame) -> pd.Series:
    control = table["control_other_people"]
    beyond: pd.Series = (table["accuracy_other_people"] - control) >= (1 - control) / 2
    return beyond


MEASURES = (
    Measure(
        "keys", "neurons of single people, and whose",
        "somebody fires the neuron at the last name token more than twice as much as anybody else",
        _keys,
    ),
    Measure(
        "key selectivity", "layers whose neurons hold people's facts",
        "selectivity at the last name token is at least 0.05 above its control", _selectivity,
    ),
    Measure(
        "values", "first tokens of values that the neuron of a person writes",
        "through attention the neuron promotes the token at least half as much as what it promotes most",
        _values,
    ),
    Measure(
        "layer_agreement", "layer and position of facts",
        "layer_agreement is at least 0.25 above its control", _layer_agreement,
    ),
    Measure(
        "agreement", "layer and position of facts",
        "agreement is at least 0.25 above its control", _neuron_agreement,
    ),
    Measure(
        "probes, by site", "where the first attribute is, and something reads it later",
        "accuracy on other people is at least halfway from its control to 1", _probe_sites,
    ),
    Measure(
        "probes, by space", "directions at the last name token that hold the first attribute and are read",
        "of the space alone, accuracy on other people is at least halfway from its control to 1",
        _probe_spaces,
    ),
)  # fmt: skip
