"""Every analysis of TransformerLens that takes a bridge runs on a model of ours."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens import SVDInterpreter, patching
from transformer_lens.head_detector import detect_head
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis
from transformer_lens.tools.analysis import attribution_patching

from interp import preset
from interp.biographies import Corpus
from interp.interventions import swapped_people
from tests.model.test_fused import make_model

WIDTH = 6
POINT = "blocks.1.hook_resid_pre"
SWEEPS = [
    *("resid_pre", "resid_mid", "attn_out", "mlp_out", "block_every"),
    *(f"attn_head_{part}_by_pos" for part in ("out", "q", "k", "v", "pattern")),
    *(f"attn_head_{part}_all_pos" for part in ("out", "q", "k", "v", "pattern")),
    *("attn_head_pattern_dest_src_pos", "attn_head_all_pos_every", "attn_head_by_pos_every"),
]


@dataclass
class Case:
    """What the analyses are given: a model, and prompts that differ in the names they begin with."""

    model: TransformerBridge
    base: Tensor
    source: Tensor
    prompts: list[str]

    @property
    def answers(self) -> tuple[int, int]:
        return int(self.base[0, 1]), int(self.source[0, 1])

    def metric(self, logits: Tensor) -> Tensor:
        right, wrong = self.answers
        return (logits[:, -1, right] - logits[:, -1, wrong]).mean()

    def cache(self, tokens: Tensor) -> Any:
        return self.model.run_with_cache(tokens)[1]

    @property
    def last(self) -> Tensor:
        return torch.full((len(self.base),), WIDTH - 1)

    def task_logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)[:, -1]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_config(preset("smoke"))


@pytest.fixture
def case(corpus: Corpus) -> Case:
    pairs = swapped_people(corpus, n=4)
    prompts = [corpus.tokenizer.decode(row[1:20]) for row in pairs.base]
    model = make_model(corpus).eval()
    return Case(model, pairs.base[:, :WIDTH], pairs.source[:, :WIDTH], prompts)


def sweep(name: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        function = getattr(patching, f"get_act_patch_{name}")
        return function(case.model, case.base, case.cache(case.source), case.metric)

    return run


def direct_path(component: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        found = patching.get_act_patch_direct_path(
            case.model, case.base, case.cache(case.source), case.cache(case.base), case.metric,
            src_layer=0, src_head=1, component=component, verbose=False,
        )  # fmt: skip
        return found[1]  # nothing is measured up to the source's layer

    return run


def direct_path_all_sources(component: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        found = patching.get_act_patch_direct_path_all_sources(
            case.model, case.base, case.cache(case.source), case.cache(case.base), case.metric,
            component=component, verbose=False,
        )  # fmt: skip
        return found[0, :, 1]

    return run


def attribution(granularity: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        config = analysis.EdgeAttributionConfig(granularity=granularity)
        found = analysis.attribution_patch(
            case.model, case.source, case.base, case.metric, config=config
        )
        scores = found.node_scores if granularity == "node" else found.edge_scores
        return torch.tensor(list(scores.values()))

    return run


def faithfulness(ablation: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        clean, corrupt = case.source[:1], case.base[:1]
        edges = analysis.attribution_patch(
            case.model, clean, corrupt, case.metric,
            config=analysis.EdgeAttributionConfig(granularity="edge"),
        ).top_edges(1000)  # fmt: skip
        config = analysis.FaithfulnessConfig(ablation=ablation)
        more = {"mean_tokens": case.source[1:]} if ablation == "mean" else {}
        few, every = (
            analysis.faithfulness(case.model, clean, corrupt, case.metric, kept, config, **more)
            for kept in (edges[:5], edges)
        )
        assert every.recovered == pytest.approx(1, abs=1e-4)
        assert every.total_edges == len(edges)
        return torch.tensor([few.recovered, every.recovered, few.full_metric, few.corrupt_metric])

    return run


def gradients(case: Case) -> Tensor:
    found = attribution_patching.cache_activation_and_gradient(
        case.model, case.base[:1], case.metric, names_filter=[POINT]
    )
    return found.gradients[POINT]


def direct_logits(unit: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        model = copy.deepcopy(case.model)
        model.enable_compatibility_mode()
        right, wrong = case.answers
        found = analysis.direct_logit_attribution(model, case.base, right, wrong, unit=unit)
        logits = model(case.base)[:, -1]
        if unit != "layer":  # together, the components make the logits but for the bias
            bias = model.b_U[right] - model.b_U[wrong]
            total = found.attribution.sum(0) + bias
            torch.testing.assert_close(
                total, logits[:, right] - logits[:, wrong], rtol=1e-3, atol=1e-3
            )
        return found.attribution

    return run


def logit_lens(case: Case) -> Tensor:
    found = analysis.logit_lens(case.model, case.base, incl_mid=True)
    logits = case.model(case.base)[:, -1]
    torch.testing.assert_close(found.values[-1], logits, rtol=1e-3, atol=1e-3)
    return found.values


def logit_readout(case: Case) -> Tensor:
    stream = case.cache(case.base)["blocks.1.hook_resid_post"]
    found = analysis.logit_readout(case.model, stream).values
    torch.testing.assert_close(found, case.model(case.base), rtol=1e-3, atol=1e-3)
    return found


def fitted_lens(case: Case) -> analysis.JacobianLens:
    return analysis.JacobianLens.fit(
        case.model, case.prompts[:2], corpus="test", max_seq_len=12, skip_first_positions=2,
        show_progress=False,
    )  # fmt: skip


def jacobian_lens(case: Case) -> Tensor:
    found = fitted_lens(case).readout(case.model, case.base[:1], return_full_logits=True)
    torch.testing.assert_close(
        found.lens_logits[1], case.model(case.base[:1])[0].detach(), rtol=1e-3, atol=1e-3
    )
    return found.lens_logits[0]


def jacobian_lens_vectors(case: Case) -> Tensor:
    return fitted_lens(case).lens_vectors(case.model, list(case.answers), 0)


def collected(case: Case, tokens: Tensor) -> Tensor:
    return analysis.collect_activations(
        case.model, POINT, tokens, case.task_logits, positions=case.last
    )


def activations(case: Case) -> Tensor:
    found = collected(case, case.base)
    torch.testing.assert_close(found, case.cache(case.base)[POINT][:, -1])
    return found


def interchanged(make: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        source = collected(case, case.source)
        basis = {
            "random": lambda: analysis.random_basis(case.model.cfg.d_model, 4, seed=0),
            "mean difference": lambda: analysis.mean_difference_basis(source, [0, 0, 1, 1]),
        }[make]()
        swap = analysis.SubspaceInterchange(basis)
        arguments = (case.model, POINT, swap, case.base, source, case.task_logits)
        edited = analysis.run_with_intervention(*arguments, positions=case.last)
        again = analysis.intervened_logits(*arguments, positions=case.last)
        torch.testing.assert_close(edited, again)
        assert not torch.allclose(edited, case.task_logits(case.base))
        return edited

    return run


def das(case: Case) -> Tensor:
    found = analysis.fit_das(
        case.model, POINT, case.base, case.source, torch.tensor(case.answers * 2),
        case.task_logits, rank=2, base_positions=case.last, source_positions=case.last, epochs=3,
    )  # fmt: skip
    basis = found.basis
    torch.testing.assert_close(basis.T @ basis, torch.eye(2), rtol=1e-4, atol=1e-4)
    return basis


def affinity(role: str) -> Callable[[Case], Tensor]:
    def run(case: Case) -> Tensor:
        found = analysis.attention_head_subspace_affinity(case.model, target_role=role)
        return found.scores[found.valid_mask]

    return run


def sparse_probe(case: Case) -> Tensor:
    tokens = torch.cat([case.base, case.source])
    features = case.cache(tokens)["blocks.1.mlp.hook_post"].flatten(0, 1)
    labels = (torch.arange(WIDTH) % 2).repeat(len(tokens))
    return analysis.fit_sparse_probe(features, labels, k=2).feature_scores


def head(pattern: str) -> Callable[[Case], Tensor]:
    return lambda case: detect_head(case.model, case.prompts, pattern, error_measure="abs")


def singular_vectors(kind: str, **more: int) -> Callable[[Case], Tensor]:
    return lambda case: SVDInterpreter(case.model).get_singular_vectors(kind, 1, 3, **more)


ANALYSES: list[tuple[str, Callable[[Case], Tensor]]] = [
    *((f"patching {name}", sweep(name)) for name in SWEEPS),
    *((f"direct path {side}", direct_path(side)) for side in "qkv"),
    *((f"direct path all sources {side}", direct_path_all_sources(side)) for side in "qkv"),
    *((f"attribution by {kind}", attribution(kind)) for kind in ("node", "edge")),
    *((f"faithfulness {kind}", faithfulness(kind)) for kind in ("corrupt", "mean")),
    ("gradients", gradients),
    *((f"direct logits {unit}", direct_logits(unit)) for unit in ("component", "layer", "head")),
    ("logit lens", logit_lens),
    ("logit readout", logit_readout),
    ("Jacobian lens", jacobian_lens),
    ("Jacobian lens vectors", jacobian_lens_vectors),
    ("collected activations", activations),
    *((f"interchange {make}", interchanged(make)) for make in ("random", "mean difference")),
    ("DAS", das),
    *((f"affinity O{role}", affinity(role)) for role in "QKV"),
    ("sparse probe", sparse_probe),
    *((f"head {n}", head(f"{n}_head")) for n in ("previous_token", "duplicate_token", "induction")),
    ("singular vectors OV", singular_vectors("OV", head_index=1)),
    *((f"singular vectors {kind}", singular_vectors(kind)) for kind in ("w_in", "w_out")),
]


@pytest.mark.parametrize(("name", "run"), ANALYSES, ids=[name for name, _ in ANALYSES])
def test_an_analysis_runs(case: Case, name: str, run: Callable[[Case], Tensor]) -> None:
    flags = {key: value for key, value in vars(case.model.cfg).items() if key.startswith("use_")}
    found = run(case).detach().float()
    assert found.numel() > 1
    assert found.isfinite().all()
    assert found.std() > 1e-4 * found.abs().max()
    assert {key: getattr(case.model.cfg, key) for key in flags} == flags
    assert not any(point.fwd_hooks or point.bwd_hooks for point in case.model.hook_dict.values())
