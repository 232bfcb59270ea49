"""Keys: selectivity and similarities against loops over people, and on made-up neurons."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import ATTRIBUTES, Corpus
from interp.config import Config
from interp.errors import CheckpointError, ConfigError, NothingToMeasureError
from interp.memory import (
    KEY_METRICS,
    POSITIONS,
    CachedActivations,
    intraclass_correlation,
    key_measures,
    key_turns,
    key_vectors,
    measure_memory,
    neuron_hook,
)
from interp.memory.keys import BETWEEN
from interp.model import evaluating, hooked_transformer
from interp.run import Run

N_NEURONS = 6


@pytest.fixture(scope="module")
def model(smoke: Config, corpus: Corpus) -> TransformerBridge:
    return hooked_transformer(smoke.with_settings(**{"model.init_std": 0.3}), corpus.tokenizer)


def fake_harvest(neurons: Tensor, individuals: Tensor, n_templates: int = 5) -> CachedActivations:
    generator = torch.Generator().manual_seed(5)
    shape = (neurons.shape[2], len(individuals), len(ATTRIBUTES))
    templates = torch.randint(n_templates, shape, generator=generator)
    return CachedActivations(individuals, templates, {}, {0: neurons})


def random_harvests(n_draws: int = 3) -> tuple[CachedActivations, CachedActivations]:
    torch.manual_seed(0)

    def one(individuals: Tensor) -> CachedActivations:
        person = torch.randn(len(POSITIONS), len(ATTRIBUTES), 1, len(individuals), N_NEURONS)
        noise = torch.randn(len(POSITIONS), len(ATTRIBUTES), n_draws, len(individuals), N_NEURONS)
        return fake_harvest(person + noise + 1, individuals)

    return one(torch.arange(24)), one(torch.arange(24, 32))


def test_selectivity_equals_an_analysis_of_variance() -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 20, 4) + 2 * torch.randn(1, 20, 4)
    x[..., 3] = 1.0  # a neuron that never changes
    found = intraclass_correlation(x)
    for neuron in range(3):
        values = x[..., neuron].numpy().astype(float)
        means, grand = values.mean(axis=0), values.mean()
        between = sum(3 * (mean - grand) ** 2 for mean in means) / (20 - 1)
        within = sum((values[draw, i] - means[i]) ** 2 for draw in range(3) for i in range(20)) / (
            20 * (3 - 1)
        )
        expected = (between - within) / (between + (3 - 1) * within)
        assert float(found[neuron]) == pytest.approx(expected, abs=1e-5)
        assert 0.5 < expected < 1
    assert found[3] == 0
    assert torch.allclose(intraclass_correlation(x[:1, :, :3].repeat(3, 1, 1)), torch.ones(3))


def slow_similarities(
    a: CachedActivations,
    b: CachedActivations,
    last_names: np.ndarray,
    attribute: int,
    place: int,
    origin: Tensor,
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"same": [], "namesake": [], "other": []}
    same_harvest = a is b
    for one in range(len(a.templates)):
        for other in range(len(b.templates)):
            if same_harvest and other <= one:
                continue
            for i, person in enumerate(a.individuals.tolist()):
                for j, stranger in enumerate(b.individuals.tolist()):
                    x = a.neurons[0][place, attribute, one, i] - origin
                    y = b.neurons[0][place, attribute, other, j] - origin
                    cosine = float(cosine_similarity(x, y, dim=0))
                    if person == stranger:
                        if a.templates[one, i, attribute] != b.templates[other, j, attribute]:
                            found["same"].append(cosine)
                        continue
                    found["other"].append(cosine)
                    if last_names[person] == last_names[stranger]:
                        found["namesake"].append(cosine)
    return found


def test_similarities_equal_loops_over_pairs(corpus: Corpus) -> None:
    known, held_out = random_harvests()
    table = key_measures(corpus, known, held_out)
    assert list(table.columns) == ["layer", "position", "split", "metric", "value", "control"]
    # Namesakes and others exist between known and held-out people too.
    assert len(table) == len(POSITIONS) * (2 * len(KEY_METRICS) + 2)
    last_names = corpus.population.names[:, 2]
    indexed = table.set_index(["position", "split", "metric"])
    pairs = {
        "evaluation": (known, known),
        "held_out": (held_out, held_out),
        "known against held-out": (known, held_out),
    }
    for place, position in enumerate(POSITIONS):
        for split, (a, b) in pairs.items():
            by_metric: dict[str, list[float]] = {"same": [], "namesake": [], "other": []}
            for attribute in range(len(ATTRIBUTES)):
                origin = known.neurons[0][place, attribute].mean(dim=(0, 1))
                slow = slow_similarities(a, b, last_names, attribute, place, origin)
                for kind, cosines in slow.items():
                    by_metric[kind].append(float(np.mean(cosines)) if cosines else np.nan)
            for kind, means in by_metric.items():
                if kind == "same" and a is not b:
                    continue
                row = indexed.loc[(position, split, f"similarity_{kind}")]
                assert row["value"] == pytest.approx(np.mean(means), abs=1e-5)
                if kind != "other":
                    other = indexed.loc[(position, split, "similarity_other"), "value"]
                    assert row["control"] == pytest.approx(other)


def test_sparsity_counts_positive_activations(corpus: Corpus) -> None:
    known, _ = random_harvests()
    table = key_measures(corpus, known).set_index(["position", "metric"])
    for place, position in enumerate(POSITIONS):
        expected = (known.neurons[0][place] > 0).float().mean()
        assert table.loc[(position, "sparsity"), "value"] == pytest.approx(float(expected))
    assert table.loc["last name"].loc["sparsity", "control"] is np.nan or np.isnan(
        table.loc[("last name", "sparsity"), "control"]
    )


def measured(corpus: Corpus, of_person: Tensor, noise: float = 0.3) -> pd.Series:
    """The measures of neurons that are a function of the person, and some noise."""
    torch.manual_seed(2)
    shape = (len(POSITIONS), len(ATTRIBUTES), 4, 24, of_person.shape[-1])
    neurons = of_person + noise * torch.randn(shape)
    table = key_measures(corpus, fake_harvest(neurons, torch.arange(24)))
    return table[table["position"] == "last name"].set_index("metric")["value"]


def test_what_selectivity_within_last_names_leaves_out(corpus: Corpus) -> None:
    torch.manual_seed(4)
    last_names = torch.from_numpy(corpus.population.names[:24, 2].astype(np.int64))
    of_name, of_person = torch.randn(10, 40)[last_names], torch.randn(24, 40)
    name, person, both = (measured(corpus, x) for x in (of_name, of_person, of_name + of_person))
    nothing = measured(corpus, torch.zeros(24, 40))
    assert name["selectivity"] > 0.8
    assert abs(name["selectivity_within_last_name"]) < 0.05
    assert abs(name["similarity_namesake"] - name["similarity_same"]) < 0.02
    assert person["selectivity"] > 0.8
    assert person["selectivity_within_last_name"] > 0.75
    assert person["similarity_namesake"] < 0.1 < 0.8 < person["similarity_same"]
    assert 0.3 < both["selectivity_within_last_name"] < 0.7 < both["selectivity"]
    for metric in ("selectivity", "selectivity_within_last_name", "similarity_same"):
        assert abs(nothing[metric]) < 0.05


def test_shuffled_people_are_not_told_apart(corpus: Corpus) -> None:
    known, _ = random_harvests()
    table = key_measures(corpus, known)
    rows = table[table["metric"].str.startswith("selectivity")]
    assert (rows["value"] > 0.2).all()
    assert (rows["control"].abs() < 0.1).all()
    pd.testing.assert_frame_equal(key_measures(corpus, known), table)


def test_key_vectors_are_mean_activations(model: TransformerBridge, corpus: Corpus) -> None:
    people = np.array([5, 2, 30])
    found = key_vectors(model, corpus, 1, people, "predicts value", draws=[0, 4])
    assert found.shape == (3, model.cfg.d_mlp)
    total = torch.zeros_like(found)
    by_attribute = torch.zeros(len(ATTRIBUTES), *found.shape)
    for draw in (0, 4):
        batch = corpus.biographies(people, draw=draw)
        with evaluating(model):
            _, cache = model.run_with_cache(batch.tokens)
        for row in range(3):
            for attribute in range(len(ATTRIBUTES)):
                place = batch.value_start[row, attribute] - 1
                neurons = cache[neuron_hook(1)][row, place]
                total[row] += neurons / (2 * len(ATTRIBUTES))
                by_attribute[attribute, row] += neurons / 2
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-4)
    one = key_vectors(model, corpus, 1, people, "predicts value", "major", draws=[0, 4])
    expected = by_attribute[ATTRIBUTES.index("major")]
    torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)
    assert len(key_vectors(model, corpus, 0)) == len(corpus.population)


def test_errors_of_keys(model: TransformerBridge, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'last name'"):
        key_vectors(model, corpus, 0, position="lastname")
    with pytest.raises(ConfigError, match="no attribute 'job'"):
        key_vectors(model, corpus, 0, attribute="job")
    with pytest.raises(ConfigError, match="there is no layer 2"):
        key_vectors(model, corpus, 2)
    with pytest.raises(ConfigError, match="at least two draws"):
        key_measures(corpus, random_harvests(n_draws=1)[0])
    with pytest.raises(ConfigError, match="2 draws and 2 people"):
        intraclass_correlation(torch.zeros(2, 1, 3))
    known, held_out = random_harvests()
    other = CachedActivations(
        held_out.individuals, held_out.templates, {}, {1: held_out.neurons[0]}
    )
    with pytest.raises(ConfigError, match="read both in the same"):
        key_measures(corpus, known, other)


def test_one_person_cannot_be_told_apart(corpus: Corpus) -> None:
    def of_one(many: CachedActivations) -> CachedActivations:
        neurons = {layer: x[:, :, :, :1] for layer, x in many.neurons.items()}
        return CachedActivations(many.individuals[:1], many.templates[:, :1], {}, neurons)

    known, held_out = random_harvests()
    for call in (
        lambda: key_measures(corpus, of_one(known), held_out),
        lambda: key_turns(of_one(known), of_one(known)),
    ):
        with pytest.raises(NothingToMeasureError, match="there is one"):
            call()
    table = key_measures(corpus, known, of_one(held_out)).set_index(["split", "metric"])["value"]
    missing = table["held_out"].isna()
    assert missing["selectivity"].all()
    assert missing["similarity_other"].all()
    assert not missing["sparsity"].any()
    assert not table["evaluation"]["selectivity"].isna().any()
    assert not table[BETWEEN]["similarity_other"].isna().any()


def test_over_a_run(short_run: Run) -> None:
    found = measure_memory(short_run, steps=[12, 0], n_individuals=12)
    for table in (found.keys, found.values, found.probes):
        assert table.columns[0] == "step"
        assert table["step"].unique().tolist() == [0, 12]
        assert not table.empty
    assert set(found.keys["split"]) == {"evaluation", "held_out", "known against held-out"}
    again = measure_memory(short_run, steps=[12], n_individuals=12)
    for name in ("keys", "values", "probes"):
        table = getattr(found, name)
        last = table[table["step"] == 12].reset_index(drop=True)
        pd.testing.assert_frame_equal(getattr(again, name), last)
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        measure_memory(short_run, steps=[7])
