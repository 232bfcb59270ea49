"""Keys: which people fire which neurons.

A person's *key vector* is the activations of a layer's neurons (`mlp.hook_post`) where the person is
met. A layer that recalls facts must tell people apart there, whatever the sentence.

That alone is no memory: embeddings of name tokens, brought together by attention, tell names apart before
any training. Three contrasts show what goes beyond it:

- *known against held-out people*, whose names are new combinations of the same parts, told in the
  same way: what embeddings give, both have; what was learned of single people, only the known;
- *namesakes*, different people with the same last name: keys that only read the last name are as
  alike for two namesakes as for one person in two sentences;
- shuffled people: chance.

None says that a key is used. In compiled models neurons that fire for one person each and write nothing
are as selective as those that hold the person's facts (docs/trust.md); ablations and swaps tell them
apart.

Sources: Geva et al. 2021, "Transformer feed-forward layers are key-value memories" (keys); the
intraclass correlation: Shrout & Fleiss 1979, "Intraclass correlations", ICC(1,1).
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from transformer_lens.model_protocol import TransformerLensModel

from interp.biographies import Corpus, Wordings
from interp.errors import ArgumentError, NothingToMeasureError, require_known
from interp.memory.activations import (
    POSITIONS,
    CachedActivations,
    cache_activations,
    draw_batches,
    require_relations,
)
from interp.memory.facts import AnyFacts, FactLabels
from interp.model import at_least_single, valid_indices
from interp.torch_state import default_state

KEY_METRICS = (
    "selectivity", "selectivity_within_last_name", "sparsity", "similarity_same",
    "similarity_namesake", "similarity_other",
)  # fmt: skip
"""What `key_measures` reports."""
BETWEEN = "known against held-out"
"""The split of similarities between a known and a held-out person."""


def key_vectors(
    model: TransformerLensModel,
    corpus: Corpus,
    layer: int,
    individuals: Integer[np.ndarray, " individual"] | slice = slice(None),
    position: str = "last name",
    attribute: str | None = None,
    wordings: Wordings = "evaluation",
    draws: Sequence[int] = (0, 1),
    batch_size: int = 64,
) -> Float[Tensor, "individual neuron"]:
    """People's key vectors in a layer: neuron activations, averaged over draws of sentences.

    Everybody's by default, held-out people last, at one of `activations.POSITIONS`, in the sentences that
    tell an attribute (by default the mean over all that a person has), in wordings of training or such as
    were never seen with a person.

    Raises:
        NothingToMeasureError: somebody does not have the attribute, or no middle name.

    Example:
        ```python
        keys = key_vectors(run.model(), run.corpus, layer=1, position="predicts value")
        keys[run.population.find("Ada May Stone")].topk(5)
        ```
    """
    require_known([position], POSITIONS, "position")
    known = corpus.attributes
    require_known([known[0] if attribute is None else attribute], known, "attribute")
    valid_indices([layer], model.cfg.n_layers, "layer")
    batches = draw_batches(corpus, individuals, wordings, draws)
    cache = cache_activations(model, batches, sites=[], layers=[layer], batch_size=batch_size)
    if position not in cache.positions:
        raise NothingToMeasureError(
            f"Somebody has no middle name, so nothing is read at {position!r}; choose another position."
        )
    neurons = cache.neurons[layer][cache.positions.index(position)].mean(dim=1)
    has = batches[0].has_value
    if attribute is None:
        return neurons.mean(dim=0) if has.all() else neurons.nanmean(dim=0)
    index = known.index(attribute)
    if not has[:, index].all():
        lacking = int(batches[0].individuals[~has[:, index]][0])
        raise NothingToMeasureError(
            f"Individual {lacking} ({corpus.population.name(lacking)}) has no {attribute}; name "
            "individuals who have one."
        )
    return neurons[index]


@default_state()
def key_measures(
    facts: AnyFacts,
    known: CachedActivations,
    held_out: CachedActivations | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How well neurons tell people apart, and how alike people's keys are.

    All are means over the attributes in whose sentences neurons are read:

    - `selectivity`: the share of a neuron's variance that is between people, not between sentences
      about one person (intraclass correlation), mean over neurons. 1: it depends on the person alone;
      0: it does not tell people apart, or is silent. Control: people shuffled in each draw.
    - `selectivity_within_last_name`: the share that is between people with the same last name. What
      the last name's embedding gives is not in it. Same control.
    - `sparsity`: the share of people (and sentences) that fire a neuron: activation above 0.
    - `similarity_same`: the cosine of a person's key vectors in two different templates, each minus
      the mean of the known people (which most of an activation is).
    - `similarity_namesake`: the same, of two different people with the same last name.
    - `similarity_other`: the same, of any two different people. It is the control of the other two.

    With few wordings, some draws repeat a template, in another place of another biography: left out
    of `similarity_same`, but not of selectivity.

    Args:
        facts: The corpus, or labels of yours.
        known: Neurons on people that training showed, in at least two draws.
        held_out: On people that it never showed, told in the same way; None if there is nobody.
        seed: Of the shuffled people.

    Returns:
        Columns `layer`, `position`, `split` ("evaluation": known people; "held_out"; for similarities
        between different people also "known against held-out"), `metric`, `value` and `control`. They
        are NaN where there is no pair of people that a metric is about, such as with one held-out person.

    Raises:
        NothingToMeasureError: one known person.
        ArgumentError: a single draw, or other layers in `held_out`.
    """
    caches = {"evaluation": known} | ({} if held_out is None else {"held_out": held_out})
    if min(len(one.templates) for one in caches.values()) < 2:
        raise ArgumentError(
            "Whether neurons tell people apart is seen over at least two draws of sentences; "
            "read two or more."
        )
    if held_out is not None and list(held_out.neurons) != list(known.neurons):
        raise ArgumentError(
            f"Known people were read in the layers {list(known.neurons)}, held-out people in "
            f"{list(held_out.neurons)}; read both in the same."
        )
    if len(known.individuals) < 2:
        raise NothingToMeasureError(
            "Whether neurons tell people apart is seen of at least two known people; there is one."
        )
    labels = FactLabels.of(facts)
    require_relations(known, labels.relations)
    groups = {split: labels.groups(one.individuals) for split, one in caches.items()}
    told = {
        split: [of.of_individual[one.individuals] >= 0 for of in labels.relations.values()]
        for split, one in caches.items()
    }
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[object, ...]] = []
    for layer in known.neurons:
        for position in known.positions:
            # Held-out names may be shorter, and have no middle.
            places = {
                split: one.positions.index(position)
                for split, one in caches.items()
                if position in one.positions
            }
            by_split: dict[str, list[dict[str, tuple[float, float]]]] = {}
            for attribute in range(len(labels.relations)):
                has = {s: told[s][attribute] for s in places if told[s][attribute].any()}
                if "evaluation" not in has:
                    continue
                keys = {
                    s: caches[s].neurons[layer][places[s], attribute][:, has_it]
                    for s, has_it in has.items()
                }
                own = {s: groups[s][has_it] for s, has_it in has.items()}
                origin = keys["evaluation"].mean(dim=(0, 1))
                directions = {s: F.normalize(x - origin, dim=-1) for s, x in keys.items()}
                for split, x in keys.items():
                    templates = caches[split].templates[..., attribute][:, has[split]]
                    measures = _selectivities(x, own[split], generator)
                    measures["sparsity"] = (float((x > 0).double().mean()), float("nan"))
                    measures |= _similarities(directions[split], own[split], templates)
                    by_split.setdefault(split, []).append(measures)
                if len(has) > 1:
                    between = _similarities_between(*directions.values(), *own.values())
                    by_split.setdefault(BETWEEN, []).append(between)
            for split, by_attribute in by_split.items():
                for metric in by_attribute[0]:
                    of_attributes = zip(*(one[metric] for one in by_attribute), strict=True)
                    rows.append((layer, position, split, metric, *map(_mean, of_attributes)))
    columns = ["layer", "position", "split", "metric", "value", "control"]
    return pd.DataFrame(rows, columns=columns)


def _mean(of_attributes: Iterable[float]) -> float:
    """The mean over the attributes that have such pairs of people; NaN if none has."""
    defined = [value for value in of_attributes if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


@default_state()
def key_turns(before: CachedActivations, after: CachedActivations) -> pd.DataFrame:
    """How far key vectors turned between two states of a model that were read on the same texts.

    Returns:
        Columns `layer`, `position`, `value` (1 - cosine of a person's key vectors before and after, mean
        over attributes, draws and people) and `control` (the same between two different people before).

    Raises:
        NothingToMeasureError: a single person.
        ArgumentError: other people, layers or positions.
    """
    if len(before.individuals) < 2:
        raise NothingToMeasureError(
            "How far keys turned is held against the angle between two people; there is one."
        )
    if (
        not torch.equal(before.individuals, after.individuals)
        or list(before.neurons) != list(after.neurons)
        or before.positions != after.positions
    ):
        raise ArgumentError(
            "Keys are compared of the same people, layers and positions; read both models with the same "
            "batches and layers."
        )
    rows = []
    for layer, old in before.neurons.items():
        turned, others = _angles(after.neurons[layer], old), _angles(old.roll(1, dims=3), old)
        rows += [(layer, *row) for row in zip(before.positions, turned, others, strict=True)]
    return pd.DataFrame(rows, columns=["layer", "position", "value", "control"])


def _angles(x: Tensor, y: Tensor) -> list[float]:
    """1 - cosine along the last dimension, the mean over all others but the first."""
    different = 1 - torch.cosine_similarity(x, y, dim=-1)
    each = different.flatten(1).double()
    missing = x.isnan().any() or y.isnan().any()  # where people have no value
    return [float(value) for value in (each.nanmean(dim=1) if missing else each.mean(dim=1))]


def intraclass_correlation(
    x: Float[Tensor, "draw individual neuron"],
) -> Float[Tensor, " neuron"]:
    """ICC(1): the share of a neuron's variance that is between people.

    Estimated from mean squares between and within people (at least two of each), so that its expectation
    is 0 where people do not differ; it can be slightly negative. A neuron that never changes gets 0.
    """
    everybody = torch.zeros(x.shape[1], dtype=torch.int64)
    return _shares_between_people(at_least_single(x), everybody)[0]


def _selectivities(
    x: Float[Tensor, "draw individual neuron"],
    groups: Int64[Tensor, " individual"],
    generator: torch.Generator,
) -> dict[str, tuple[float, float]]:
    if x.shape[1] < 2:
        return dict.fromkeys(KEY_METRICS[:2], (float("nan"), float("nan")))
    orders = [torch.randperm(x.shape[1], generator=generator) for _ in x]
    shuffled = torch.stack([part[order] for part, order in zip(x, orders, strict=True)])
    real, control = (
        [float(shares.mean()) for shares in _shares_between_people(one, groups)]
        for one in (x, shuffled)
    )
    return dict(zip(KEY_METRICS, zip(real, control, strict=True), strict=False))


def _shares_between_people(
    x: Float[Tensor, "draw individual neuron"], groups: Int64[Tensor, " individual"]
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " neuron"]]:
    """Each neuron's share of variance that is between people, and between people of one group.

    Variances are estimated as in a one-way and a nested analysis of variance: from the mean squares
    of people around the mean, of people around their group's mean, and of draws around the person's.
    """
    n_draws, n_people, _ = x.shape
    if n_draws < 2 or n_people < 2:
        raise NothingToMeasureError(
            f"The share of variance between people needs at least 2 draws and 2 people; there are "
            f"{n_draws} and {n_people}."
        )
    means = x.mean(dim=0)
    within = (x - means).square_().sum(dim=(0, 1)) / (n_people * (n_draws - 1))
    # Sums of squares around a mean are taken from deviations, which are of their own size.
    deviation = means - means.mean(dim=0)
    squares = deviation.square().sum(dim=0)
    person = squares / (n_people - 1) - within / n_draws
    _, index, sizes = groups.to(x.device).unique(return_inverse=True, return_counts=True)
    freedom = n_people - len(sizes)
    if not freedom:
        return _share(person, person + within), torch.full_like(within, float("nan"))
    sums = x.new_zeros(len(sizes), x.shape[-1]).index_add_(0, index, deviation)
    between_groups = (sums.square() / sizes[:, None]).sum(dim=0)
    in_group = (squares - between_groups) / freedom - within / n_draws
    return _share(person, person + within), _share(in_group, person + within)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Their ratio; 0 for a neuron without variance."""
    return torch.where(whole > 0, part / whole.where(whole > 0, torch.ones_like(whole)), 0.0)


def _similarities(
    directions: Float[Tensor, "draw individual neuron"],
    groups: Int64[Tensor, " individual"],
    templates: Int64[Tensor, "draw individual"],
) -> dict[str, tuple[float, float]]:
    """Mean cosines over all pairs of draws: of a person with herself, a namesake, anybody else."""
    same: list[Tensor] = []
    sums = np.zeros((2, 2))  # [namesakes or anybody, sum or count]
    for one, other in combinations(range(len(directions)), 2):
        a, b = directions[one], directions[other]
        with_herself = (a * b).sum(dim=-1).double()
        same.append(with_herself[(templates[one] != templates[other]).to(a.device)])
        for row, grouping in zip(sums, (groups, torch.zeros_like(groups)), strict=True):
            total, count = _pair_sums(a, b, grouping, grouping)
            row += total - float(with_herself.sum()), count - len(groups)
    namesakes, others = (float(total / n) if n else float("nan") for total, n in sums)
    cosines = torch.cat(same)
    return {
        "similarity_same": (float(cosines.mean()) if len(cosines) else float("nan"), others),
        "similarity_namesake": (namesakes, others),
        "similarity_other": (others, float("nan")),
    }


def _similarities_between(
    known: Float[Tensor, "draw individual neuron"],
    held_out: Float[Tensor, "held_draw held_individual neuron"],
    known_groups: Int64[Tensor, " individual"],
    held_out_groups: Int64[Tensor, " held_individual"],
) -> dict[str, tuple[float, float]]:
    everybody = torch.zeros_like(known_groups), torch.zeros_like(held_out_groups)
    means = []
    for groups in ((known_groups, held_out_groups), everybody):
        total, count = _pair_sums(known.sum(0), held_out.sum(0), *groups)
        pairs = count * len(known) * len(held_out)
        means.append(total / pairs if pairs else float("nan"))
    namesakes, others = means
    return {
        "similarity_namesake": (namesakes, others),
        "similarity_other": (others, float("nan")),
    }


def _pair_sums(
    a: Float[Tensor, "a_individual neuron"],
    b: Float[Tensor, "b_individual neuron"],
    a_groups: Int64[Tensor, " a_individual"],
    b_groups: Int64[Tensor, " b_individual"],
) -> tuple[float, int]:
    """The sum of a @ b over all pairs in the same group, and their number; no pair is made."""
    _, index = torch.cat([a_groups, b_groups]).unique(return_inverse=True)
    n_groups = int(index.max()) + 1
    sums, counts = [], []
    for x, groups in ((a, index[: len(a)]), (b, index[len(a) :])):
        sums.append(x.new_zeros(n_groups, x.shape[1]).index_add_(0, groups.to(x.device), x))
        counts.append(torch.bincount(groups, minlength=n_groups))
    return float((sums[0] * sums[1]).sum(dtype=torch.float64)), int((counts[0] * counts[1]).sum())
