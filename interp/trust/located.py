"""Marks of measures that put others together: strengths of mechanisms, and one located fact."""

import pandas as pd

from interp.attention import attention_to_names
from interp.biographies import Spans, Texts
from interp.compiled import CompiledRecall
from interp.interventions import swapped_people
from interp.memory import (
    FactPrompt,
    key_measures,
    locate_facts,
    mechanism_strengths,
    probe_accuracies,
    recall_edges,
    swaps,
    value_measures,
)
from interp.memory.emergence import FAINT
from interp.trust.circuit import (
    LAST_NAME,
    VALUE,
    fact_layers,
    known_people,
    name_copying_heads,
    recalling_heads,
)
from interp.trust.contract import Mark, Measure
from interp.trust.memory import WORDINGS, first_attribute, of_first_attribute, read_of

N_PAIRS = 6
"""Pairs of people for the strengths of mechanisms."""
N_LOCATED = 2
"""People whose facts are located, all of each."""
_PRESENT = (
    "type attention", "extraction attention", "probe at value position", "attention swap at value",
    "knowledge",
)  # fmt: skip


def _strengths(compiled: CompiledRecall) -> Mark:
    series, corpus = {0: compiled.model}, compiled.corpus
    n_people = known_people(compiled)
    batch = corpus.biographies(slice(0, min(n_people, 12)))
    texts = Texts(batch.tokens, Spans.of(batch))
    held_out = slice(n_people, len(corpus.population))
    train, test = (of_first_attribute(read_of(compiled, one)) for one in WORDINGS)
    foreign = of_first_attribute(read_of(compiled, "evaluation", held_out))
    labels = first_attribute(compiled)
    pairs = swapped_people(corpus, n=N_PAIRS)
    tables = {
        ("attention", "scores"): attention_to_names(series, texts=texts),
        ("memory", "keys"): _at_0(key_measures(labels, test, foreign)),
        ("memory", "values"): _at_0(value_measures(compiled.model, labels, test)),
        ("memory", "probes"): _at_0(probe_accuracies(labels, train, test)),
        ("interventions", "swaps"): swaps(
            series, pairs={"any": pairs}, sites=("attn_out", "mlp_out")
        ),
        ("interventions", "edges"): recall_edges(series, pairs=pairs),
    }
    measured = compiled.measure()
    own = measured[measured["metric"] == "attribute_accuracy"].set_index("attribute")["value"]
    strengths = mechanism_strengths(tables, pd.Series({0: float(own["all"])}))
    found = set(strengths.loc[strengths["strength"] >= FAINT, "mechanism"])
    built = set(_PRESENT)
    if fact_layers(compiled):
        built |= {"MLP share at names", "MLP swap at names"}
    if name_copying_heads(compiled):
        built |= {"name grouping at last name"}
    return Mark(built, found)


def _at_0(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(step=0)


def _located(compiled: CompiledRecall) -> Mark:
    corpus, neurons = compiled.corpus, compiled.key.neurons
    whose = neurons[neurons["role"] == "person"].set_index("individual")["neuron"]
    recalls = recalling_heads(compiled)
    writer = [f"mlp {layer}" for layer in fact_layers(compiled)] or ["embedding"]
    asked = [(person, a) for person in range(N_LOCATED) for a in corpus.population.facts(person)]
    prompts = [FactPrompt.of_person(corpus, *one) for one in asked]
    built: set[tuple[object, ...]] = set()
    found: set[tuple[object, ...]] = set()
    errors = []
    for fact, of in zip(locate_facts({0: compiled.model}, prompts), asked, strict=True):
        built |= {(*of, "head", *recalls[of[1]]), (*of, "part", writer[0])}
        built |= {(*of, "neuron", 0, int(whose[of[0]]))} if len(whose) else set()
        half = fact.logit_difference / 2
        head = fact.strongest_heads(n=1).iloc[0]
        parts = fact.components[fact.components["at"] == LAST_NAME]
        part = parts.iloc[int(parts["contribution"].abs().argmax())]
        neuron = fact.strongest_neurons(LAST_NAME, n=1).iloc[0]
        name = part["component"] + ("" if pd.isna(part["layer"]) else f" {part['layer']}")
        for row, what in (
            (head, ("head", int(head["layer"]), int(head["head"]))),
            (part, ("part", name)),
            (neuron, ("neuron", int(neuron["layer"]), int(neuron["neuron"]))),
        ):
            if row["contribution"] >= half:
                found.add((*of, *what))
        heads = fact.heads[fact.heads["at"] == VALUE].set_index(["layer", "head"])
        brought = float(heads["contribution"][recalls[of[1]]])
        errors.append(abs(brought / fact.logit_difference - 1))
    return Mark(built, found, sum(errors) / len(errors), "share of the logit difference, absolute")


MEASURES = (
    Measure(
        "strengths of mechanisms", "which mechanisms are built in",
        "the mechanism's strength is at least 0.05, below which `emergence_steps` calls it absent",
        _strengths,
    ),
    Measure(
        "locate_fact", "of single facts: the head, the part at the last name token, and the neuron there",
        "it contributes most of its kind, and at least half of the logit difference", _located,
    ),
)  # fmt: skip
