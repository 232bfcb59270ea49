"""What is measured here and by TransformerLens too gives the same numbers (docs/transformer_lens.md)."""

import copy
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis
from transformers import GPT2Config, GPT2LMHeadModel

from interp import hooked_transformer
from interp.biographies import ATTRIBUTES, Corpus, Spans, TokenKind, load_tokenizer
from interp.config import Config
from interp.interventions import LOGIT_DIFFERENCE, Grid, Pairs, attribution, patch, swapped_people
from interp.memory import RidgeProbe, sums_of_inputs
from interp.memory.contributions import Contributions, logit_lens
from interp.memory.fact_prompt import FactPrompt
from interp.memory.located_fact import VALUE
from interp.memory.swap import swap_success
from interp.model import evaluating

KINDS = ("LN", "RMS", "rotary", "GPT-2")
TESTS = Path(__file__).parents[1]
DOC = TESTS.parent / "docs" / "transformer_lens.md"


# How ours are called, in one place each.


def patched(model: TransformerBridge, pairs: Pairs, site: str, where: Any, **grid: Any) -> Tensor:
    """The logit difference after each edit of a grid, mean over pairs, in the grid's order."""
    table = patch(model, pairs, Grid(site, where, aligned=True, **grid), metrics=LOGIT_DIFFERENCE)
    return torch.tensor(table["value"].to_numpy())


def attributed(model: TransformerBridge, pairs: Pairs, site: str) -> Tensor:
    """To first order, at each position of each layer and unit."""
    return torch.tensor(
        attribution(model, pairs, Grid(site, "each", aligned=True))["approximate"].to_numpy()
    )


def located(model: TransformerBridge, text: FactPrompt) -> tuple[Contributions, pd.DataFrame]:
    """The contributions to one prompt's prediction, and the logit lens on it."""
    rivals = list(text.rivals)
    with evaluating(model):
        _, cache = model.run_with_cache(text.read)
        return Contributions(model, cache, text, rivals), logit_lens(model, cache, text, rivals)


# What both are given.


def bridge_of_gpt2(corpus: Corpus, folder: Path) -> TransformerBridge:
    corpus.tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=corpus.longest, vocab_size=len(corpus.tokenizer),
        initializer_range=0.3, architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    return TransformerBridge.boot_transformers(
        "gpt2", hf_model=GPT2LMHeadModel(config), tokenizer=load_tokenizer(folder)
    )


@pytest.fixture(scope="module", params=KINDS)
def make(
    request: pytest.FixtureRequest,
    smoke: Config,
    corpus: Corpus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], TransformerBridge]:
    """Makes the same model every time; biases and norms matter, attention is far from uniform."""

    def of_this_kind() -> TransformerBridge:
        settings: dict[str, Any] = {"model.init_std": 0.3, "model.n_ctx": corpus.longest}
        if request.param == "RMS":
            settings |= {"model.normalization": "RMS", "model.n_layers": 3}
        if request.param == "rotary":
            settings |= {"model.positions": "rotary"}
        if request.param == "GPT-2":
            model = bridge_of_gpt2(corpus, tmp_path_factory.mktemp("tokenizer"))
        else:
            model = hooked_transformer(smoke.with_settings(**settings), corpus.tokenizer)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return of_this_kind


@pytest.fixture(scope="module")
def model(make: Callable[[], TransformerBridge]) -> TransformerBridge:
    return make()


@pytest.fixture(scope="module")
def texts(corpus: Corpus) -> list[FactPrompt]:
    """Several prompts of different lengths, each with several tokens that it is compared with."""
    found = []
    for person, index in ((3, 2), (5, 0), (8, 4)):
        prompt = FactPrompt.of_person(
            corpus, person, ATTRIBUTES[index], "evaluation", 1, "biography"
        )
        rivals = tuple(token for token in (20, 31, 44) if token != prompt.target)
        found.append(replace(prompt, rivals=rivals))
    assert len({text.start for text in found}) > 1
    return found


@pytest.fixture(scope="module")
def pairs(corpus: Corpus) -> Pairs:
    """Prompts that are read at their end, where all have the same two answers."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(5, len(corpus.tokenizer), (4, 9), generator=generator)
    source = base.clone()
    source[:, 1:4] = torch.randint(5, len(corpus.tokenizer), (4, 3), generator=generator)
    spans = Spans.from_lists(9, sentences=[(1, 9)], names=[(1, 4)], types=[(6, 7)])
    return Pairs.of_tokens(base, source, Spans.stack([spans] * 4), 8, 7, 11)


@pytest.fixture(scope="module")
def uneven(corpus: Corpus) -> Pairs:
    """Two people told in the same sentences: positions, and where is read, differ."""
    return swapped_people(corpus, n=12)


def padded(texts: Sequence[FactPrompt]) -> Tensor:
    """The prompts as one batch; what follows a prompt changes nothing before it."""
    width = max(text.start for text in texts)
    tokens = torch.zeros(len(texts), width, dtype=torch.long)
    for row, text in enumerate(texts):
        tokens[row, : text.start] = text.read[0]
    return tokens


def difference(logits: Tensor, pairs: Pairs) -> Tensor:
    rows = torch.arange(len(pairs))
    read = logits[rows, pairs.read]
    return read[rows, pairs.source_answer] - read[rows, pairs.base_answer]


# Reading off the stream.


def test_logit_lens(model: TransformerBridge, texts: list[FactPrompt]) -> None:
    """In one pass over all prompts there, prompt by prompt here; probability within 1e-6."""
    tokens = padded(texts)
    targets = torch.tensor([[text.target] for text in texts])
    lens = partial(analysis.logit_lens, model, tokens, incl_mid=True, positions=None)
    chances = lens(targets=targets, return_type="probs")
    logits = lens().values
    for row, text in enumerate(texts):
        ours = located(model, text)[1]
        for at, position in text.places.items():
            here = ours[ours["at"] == at].reset_index()
            for index, label in enumerate(chances.labels[:-1]):
                layer, site = label.split("_")
                one = here[(here["layer"] == int(layer)) & (here["site"] == f"resid_{site}")]
                same_as(one, index, chances, logits, row, position, text)
            last = here[(here["layer"] == model.cfg.n_layers - 1) & (here["site"] == "resid_post")]
            same_as(last, -1, chances, logits, row, position, text)
    assert chances.values.max() > 5 * chances.values.min()


def same_as(
    ours: pd.DataFrame,
    index: int,
    chances: Any,
    logits: Tensor,
    row: int,
    at: int,
    text: FactPrompt,
) -> None:
    there = logits[index, row, at]
    expected = there[text.target] - there[list(text.rivals)].mean()
    assert ours["probability"].item() == pytest.approx(
        chances.values[index, row, at, 0].item(), abs=1e-6
    )
    assert ours["rank"].item() == chances.rank_trajectory()[index, row, at].item() + 1
    assert ours["logit_difference"].item() == pytest.approx(expected.item(), abs=1e-4)


@torch.no_grad()
def test_direct_logit_attribution(
    make: Callable[[], TransformerBridge], model: TransformerBridge, texts: list[FactPrompt]
) -> None:
    """There on weights that are processed first, here on those of the model; within 1e-4 logits."""
    processed = make()
    # Folded, the bias of a head's values counts as the layer's, not as the head's.
    processed.enable_compatibility_mode(fold_value_biases=False, disable_warnings=True)
    tokens, wanted = padded(texts), torch.tensor([text.target for text in texts])
    row = torch.arange(len(texts))
    place = torch.tensor([text.places[VALUE] for text in texts])
    of_rival = {"component": [], "head": []}
    biases = []
    for number in range(min(len(text.rivals) for text in texts)):
        rival = torch.tensor([text.rivals[number] for text in texts])
        biases.append(processed.b_U[wanted] - processed.b_U[rival])
        for unit, found in of_rival.items():
            theirs = analysis.direct_logit_attribution(
                processed, tokens, wanted, rival, unit=unit, pos=None
            )
            found.append(theirs.attribution[:, row, place])
            labels = theirs.labels if unit == "component" else labels
    components, heads = (torch.stack(found).mean(0) for found in of_rival.values())
    bias = torch.stack(biases).mean(0)
    n_rivals = len(biases)
    exact = copy.deepcopy(model).double()
    for prompt, text in enumerate(texts):
        text = replace(text, rivals=text.rivals[:n_rivals])
        contributions = located(model, text)[0]
        table = contributions.components()
        table = table[table["at"] == VALUE]
        ours = [part for _, part in by_component(table, model.cfg.n_layers)]
        assert [name for name, _ in by_component(table, model.cfg.n_layers)] == labels
        assert ours == pytest.approx(components[:, prompt].tolist(), abs=1e-4)
        constant = table.loc[table["component"] == "bias", "contribution"].item()
        assert constant == pytest.approx(bias[prompt].item(), abs=1e-4)
        of_heads = contributions.heads()
        of_heads = of_heads.loc[of_heads["at"] == VALUE, "contribution"]
        assert of_heads.tolist() == pytest.approx(heads[:-1, prompt].tolist(), abs=1e-4)
        assert of_heads.abs().max() > 0.01
        # Independent of both: the logits of the model.
        logits = exact(text.read)[0, -1]
        whole = logits[text.target] - logits[list(text.rivals)].mean()
        assert table["contribution"].sum() == pytest.approx(whole.item(), abs=1e-4)


def by_component(table: pd.DataFrame, n_layers: int) -> list[tuple[str, float]]:
    """Our components by TransformerLens' names; what attention writes is its heads and its bias."""
    names = {"embedding": "embed", "position": "pos_embed"}
    first = [
        (names[row.component], row.contribution)
        for row in table.itertuples()
        if row.component in names
    ]
    parts = table.dropna(subset="layer").set_index(["layer", "component"])["contribution"]
    for layer in range(n_layers):
        of = parts.loc[layer]
        first.append((f"{layer}_attn_out", of["heads"] + of["attention bias"]))
        first.append((f"{layer}_mlp_out", of["mlp"]))
    return first


# Edits.

UNITS = ("out", "q", "k", "v", "pattern")
SITE_OF = {"out": "z"}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("where", ["by_pos", "all_pos"])
def test_activation_patching_of_heads(
    model: TransformerBridge, pairs: Pairs, unit: str, where: str
) -> None:
    """The sweeps over heads, at each position and at all of them; within 1e-4 logits."""
    sweep = getattr(patching, f"get_act_patch_attn_head_{unit}_{where}")
    with evaluating(model):
        _, cache = model.run_with_cache(pairs.source)
        theirs = sweep(model, pairs.base, cache, lambda out: difference(out, pairs).mean())
    everywhere = {"all": torch.ones_like(pairs.base, dtype=torch.bool)}
    ours = patched(
        model, pairs, SITE_OF.get(unit, unit), "each" if where == "by_pos" else everywhere
    )
    if where == "by_pos" and unit != "pattern":
        theirs = theirs.transpose(1, 2)  # [layer, position, head]
    torch.testing.assert_close(ours, theirs.double().flatten(), rtol=0, atol=1e-4)
    assert ours.std() > 1e-3


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_activation_patching_of_streams(model: TransformerBridge, pairs: Pairs, site: str) -> None:
    with evaluating(model):
        _, cache = model.run_with_cache(pairs.source)
        theirs = getattr(patching, f"get_act_patch_{site}")(
            model, pairs.base, cache, lambda out: difference(out, pairs).mean()
        )
    ours = patched(model, pairs, site, "each")
    torch.testing.assert_close(ours, theirs.double().flatten(), rtol=0, atol=1e-4)


def test_attribution_patching(model: TransformerBridge, pairs: Pairs) -> None:
    """All pairs in one pass here, pair by pair there; within 1e-4 logits."""

    def metric(logits: Tensor) -> Tensor:
        return (logits[:, -1, pairs.source_answer[0]] - logits[:, -1, pairs.base_answer[0]]).sum()

    theirs = analysis.attribution_patch(model, pairs.source, pairs.base, metric).node_scores
    for site, kind in (("z", "attn_head_out"), ("mlp_out", "mlp_out")):
        nodes = {n: score for n, score in theirs.items() if n.kind == kind}
        # Ours: layer, then head, then position.
        ordered = sorted(nodes, key=lambda n: (n.layer, n.head or 0, n.position))
        ours = attributed(model, pairs, site)
        assert ours.tolist() == pytest.approx([nodes[n] for n in ordered], abs=1e-4)
        assert ours.abs().max() > 0.01


def test_attribution_patching_of_pairs_that_differ(model: TransformerBridge, uneven: Pairs) -> None:
    """Each pair has its own positions and answers: there, one call for each."""
    few = only_names(uneven[:3])
    total = torch.zeros(model.cfg.n_layers, few.base.shape[1], dtype=torch.float64)
    for index in range(len(few)):
        one = few[index : index + 1]
        found = analysis.attribution_patch(
            model, one.source, one.base, lambda logits, one=one: difference(logits, one).sum()
        )
        for node, score in found.node_scores.items():
            if node.kind == "mlp_out":
                total[node.layer, node.position] += score
    where = torch.arange(few.base.shape[1]) <= few.read[:, None]
    table = attribution(model, few, Grid("mlp_out", {"some": where}))
    expected = total.sum(1) / len(few)
    assert table["approximate"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert expected.abs().max() > 0.1


def only_names(pairs: Pairs) -> Pairs:
    """The same bases, and sources of the same length: their own tokens where both have a counterpart."""
    source = pairs.base.clone()
    name = pairs.spans.kind == TokenKind.NAME
    source[name] = pairs.source.gather(1, pairs.source_position.clamp(min=0))[name]
    return Pairs.of_tokens(
        pairs.base, source, pairs.spans, pairs.read, pairs.base_answer, pairs.source_answer
    )


def interchanged(
    model: TransformerBridge, pairs: Pairs, point: str, basis: Tensor, place: Tensor
) -> Tensor:
    """The logits where they are read, after an interchange at one position of each pair."""
    row = torch.arange(len(pairs))

    def at_read(tokens: Tensor) -> Tensor:
        return model(tokens)[row, pairs.read]

    def at_source_read(tokens: Tensor) -> Tensor:
        return model(tokens)[row, pairs.source_read]

    source = analysis.collect_activations(
        model, point, pairs.source, at_source_read, positions=pairs.source_position[row, place]
    )
    swap = analysis.SubspaceInterchange(basis)
    return analysis.intervened_logits(
        model, point, swap, pairs.base, source, at_read, positions=place
    )


def last_names(pairs: Pairs) -> Tensor:
    """The last name token before each value."""
    places = torch.arange(pairs.base.shape[1])
    return (
        ((pairs.spans.kind == TokenKind.NAME) & (places <= pairs.read[:, None]))
        .long()
        .mul(places)
        .amax(1)
    )


def test_interchange(model: TransformerBridge, uneven: Pairs) -> None:
    """In the whole space: swaps, and how often predictions follow them; within 1e-4 logits."""
    place = last_names(uneven)
    follows = swap_success(model, uneven, ["resid_pre", "mlp_out"]).query("position == 'last name'")
    for site in ("resid_pre", "mlp_out"):
        for layer in range(model.cfg.n_layers):
            logits = interchanged(
                model, uneven, f"blocks.{layer}.hook_{site}", torch.eye(model.cfg.d_model), place
            )
            row = torch.arange(len(uneven))
            expected = logits[row, uneven.source_answer] - logits[row, uneven.base_answer]
            ours = patched(model, uneven, site, "last name", layers=[layer])
            assert ours.item() == pytest.approx(expected.mean().item(), abs=1e-4)
            share = (logits.argmax(1) == uneven.source_answer).double().mean().item()
            one = follows[(follows["site"] == site) & (follows["layer"] == layer)]
            assert one["follows"].item() == pytest.approx(share, abs=1e-9)


def test_interchange_of_neurons(model: TransformerBridge, uneven: Pairs) -> None:
    neurons = [1, 4, 9, 20, 33]
    place = last_names(uneven)
    basis = analysis.neuron_basis(model.cfg.d_mlp, neurons)
    logits = interchanged(model, uneven, "blocks.0.mlp.hook_post", basis, place)
    row = torch.arange(len(uneven))
    expected = logits[row, uneven.source_answer] - logits[row, uneven.base_answer]
    ours = patched(model, uneven, "post", "last name", layers=[0], neurons={"chosen": neurons})
    assert ours.item() == pytest.approx(expected.mean().item(), abs=1e-4)
    plain = patched(model, uneven, "post", "last name", layers=[0], neurons={"chosen": [2]})
    assert ours.item() != pytest.approx(plain.item(), abs=1e-4)


# Probes.


@pytest.mark.parametrize("spread", [1, 16])
def test_probes(spread: int) -> None:
    """Both separate what is separable and neither what is not; a few coordinates miss what is spread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 16, generator=generator)
    score = x[:, :spread].sum(1)
    kept = score.abs() > 0.3 * spread**0.5  # a margin
    x, label = x[kept], (score[kept] > 0).long()
    shuffled = label[torch.randperm(len(label), generator=generator)]
    accuracy: dict[str, float] = {}
    for name, of_task in (("real", label), ("control", shuffled)):
        for k in (1, 16):
            sparse = analysis.fit_sparse_probe(x, of_task, k=k)
            accuracy[f"{name}, {k} coordinates"] = sparse.metrics.accuracy
        train, test = sparse.train_indices, sparse.test_indices
        gram, by_class = sums_of_inputs(x[None, train], of_task[None, None, train], 2)
        predicted = RidgeProbe(gram[0], by_class[0]).predict(x[test], 1e-3)[0]
        accuracy[f"{name}, ridge"] = (predicted == of_task[test]).double().mean().item()
    assert accuracy["real, ridge"] > 0.97
    assert accuracy["real, 16 coordinates"] > 0.97
    assert abs(accuracy["control, ridge"] - accuracy["control, 16 coordinates"]) < 0.1
    assert abs(accuracy["control, ridge"] - 0.5) < 0.12
    if spread == 1:
        assert accuracy["real, 1 coordinates"] > 0.97
    else:
        assert accuracy["real, 1 coordinates"] < 0.8


# The document.


def rows_of_the_table() -> list[list[str]]:
    lines = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    found = importlib.import_module(module)
    return getattr(found, attribute)


def test_what_the_table_names_exists() -> None:
    rows = rows_of_the_table()
    assert len(rows) >= 12
    assert all(len(row) == 5 for row in rows)
    for row in rows:
        assert row[2] == "none" or "`" in row[2], row
        names = re.findall(r"`([\w.]+)`", row[1])
        assert names, row
        for name in names:
            assert callable(imported(f"transformer_lens.{name}")), name
        for name in re.findall(r"`([\w.]+)`", row[2]):
            assert callable(imported(f"interp.{name}")), name


def test_every_row_is_held_by_a_test() -> None:
    for row in rows_of_the_table():
        tests = re.findall(r"`([\w/]+)::(test_\w+)`", row[3])
        assert tests, row
        for file, test in tests:
            text = (TESTS / f"{file}.py").read_text(encoding="utf-8")
            assert f"def {test}(" in text, (file, test)


def test_no_analysis_is_left_out() -> None:
    named = {
        name.rsplit(".", 1)[-1]
        for row in rows_of_the_table()
        for name in re.findall(r"`([\w.]+)`", row[1])
    }
    functions = {
        name
        for name in analysis.__all__
        if name[0].islower() and not name.endswith("_basis") and "random" not in name
    }
    helpers = {
        "arbitrary_targets", "collect_activations", "intervened_logits", "orthonormal_subspace",
        "projection_kernel", "reinitialized", "get_sparse_decomposition", "solve_coordinate_patch",
        "logit_readout", "sweep_sparse_probe",
    }  # fmt: skip
    assert functions - helpers <= named, functions - helpers - named
