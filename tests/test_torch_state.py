"""Nothing that the caller has set in PyTorch, NumPy or pandas changes a run's bytes or a measure."""

import os
import random
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import plotly.io as pio
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import interp
from interp import associative_memory, circuits, equations, knowledge, maps, memory, merging
from interp.associative_memory import AssociativeMemoryConfig
from interp.attention import cut_edges, edge_mask, knockout_costs
from interp.biographies import spans_of
from interp.config import Config
from interp.contradictions import contradiction_table
from interp.errors import ArgumentError, RunError
from interp.interventions import Grid, Knockout, causal_trace, swapped_attributes
from interp.memory.transplant import transplants, weight_changes
from interp.model import export_huggingface
from interp.model.adapters import LoraSpec, attach_adapter, load_adapter
from interp.run import Run
from interp.torch_state import default_state
from interp.training.costs import training_costs
from tests.helpers import contents


@contextmanager
def put(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> Iterator[None]:
    """A setting of the process, as a notebook's first cell makes it."""
    before = read()
    write(value)
    try:
        yield
        assert read() == value, "the caller's setting is put back"
    finally:
        write(before)


@contextmanager
def on_another_device() -> Iterator[None]:
    """Put back to none at all: "cpu" would leave a mode that later tests' twins do not expect."""
    with put(torch.get_default_device, torch.set_default_device, torch.device("meta")):
        yield
    torch.set_default_device(None)


@contextmanager
def flushing_denormals() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
        assert float("5e-324") * 1.0 == 0.0
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def seeded_otherwise() -> Iterator[None]:
    torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
    before = generators()
    yield
    assert generators() == before, "the caller's generators are left as they were"


def generators() -> tuple[Any, ...]:
    # Python's own is drawn from by beartype (see `test_pythons_own_generator`).
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


@contextmanager
def without_strings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an option that will go
        with pd.option_context("future.infer_string", False):
            yield


@contextmanager
def of_fine_precision() -> Iterator[None]:
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("this PyTorch has one setting for all backends")
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no gradients": partial(
        put, torch.is_grad_enabled, lambda on: torch._C._set_grad_enabled(on), False
    ),
    "inference mode": torch.inference_mode,
    "float64": partial(put, torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "another device": on_another_device,
    "inside a device": partial(torch.device, "meta"),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "autocast without a context": partial(
        put,
        partial(torch.is_autocast_enabled, "cpu"),
        partial(torch.set_autocast_enabled, "cpu"),
        True,
    ),
    "fast products": partial(
        put, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "fast products of one backend": of_fine_precision,
    "no oneDNN": partial(
        put,
        lambda: torch.backends.mkldnn.enabled,
        partial(setattr, torch.backends.mkldnn, "enabled"),
        False,
    ),
    "another attention kernel": partial(sdpa_kernel, SDPBackend.MATH),
    "flushed denormals": flushing_denormals,
    "deterministic algorithms": partial(
        put,
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        True,
    ),
    "numpy that raises": partial(np.errstate, all="raise"),
    "pandas without strings": without_strings,
    "seeds": seeded_otherwise,
    "plotly's dark template": partial(
        put,
        lambda: pio.templates.default,
        partial(setattr, pio.templates, "default"),
        "plotly_dark",
    ),
    "joblib's threads": partial(joblib.parallel_config, backend="threading"),
}


class Given:
    """What measures take, made in a clean state."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.model, self.early = run.model(), run.model(run.steps[0])
        self.pairs = interp.swapped_people(run.corpus, n=6)
        self.people = run.corpus.biographies(np.arange(6))

    @property
    def facts(self) -> interp.Facts:
        """Made anew, as all that it gives has to be in any state."""
        people = self.run.population
        facts = [(people.name(i), "major", people.facts(i)["major"]) for i in range(4)]
        return interp.Facts.from_table(
            facts, self.run.tokenizer, {"major": "{subject} graduated from"}
        )


def exported(given: Given) -> tuple[np.ndarray, ...]:
    """The bytes of all files of a folder for transformers."""
    with tempfile.TemporaryDirectory() as folder:
        written = export_huggingface(given.model, folder)
        return tuple(np.frombuffer(p.read_bytes(), np.uint8) for p in sorted(written.iterdir()))


def adapted(given: Given) -> tuple[torch.Tensor, ...]:
    """An adapter on a copy of the model: written, merged, taken out again, read."""
    model = given.run.model()
    adapter = attach_adapter(model, LoraSpec(rank=2))
    for name, tensor in adapter.named_tensors().items():
        tensor.copy_(0.1 if name.endswith("B") else tensor)
    with tempfile.TemporaryDirectory() as folder:
        adapter.save(folder)
        adapter.merge()
        merged = [weight.detach().clone() for weight in model.parameters()]
        adapter.unmerge()
        adapter.detach()
        loaded = load_adapter(model, folder)
    return *merged, *loaded.parameters()


def contradicted(given: Given) -> interp.Corpus:
    """The corpus of the run with a second value for some people."""
    told = {"attribute": "major", "share_of_people": 0.5, "share_of_biographies": 0.5}
    return interp.Corpus.from_config(
        given.run.config.with_settings(**{"data.contradictions": told})
    )


GRID = Grid(("resid_pre", "z", "mlp_out"), ("last name", "predicts value"))
MEASURES: dict[str, Callable[[Given], Any]] = {
    "patch": lambda g: interp.patch(g.model, g.pairs, GRID),
    "patch by copies of the stream": lambda g: interp.patch(g.model, g.pairs, Grid("q_input", "last name")),
    "cut": lambda g: interp.patch(
        g.model, g.pairs, Grid("pattern", "predicts value", edit=Knockout("every name"))
    ),
    "mean": lambda g: interp.patch(g.model, g.pairs, Grid("mlp_out", "every name", edit="mean")),
    "path_patch": lambda g: interp.path_patch(g.model, g.pairs, "mlp_out"),
    "attribution": lambda g: interp.attribution(g.model, g.pairs, GRID),
    "a window of layers": lambda g: interp.patch(g.model, g.pairs, Grid("mlp_out", "last name", window=2)),
    "attribution of a window": lambda g: interp.attribution(
        g.model, g.pairs, Grid("z", "last name", heads="all", window=2)
    ),
    "causal_trace": lambda g: causal_trace(g.model, g.people, Grid("mlp_out", "last name"), n_samples=1),
    "logit_lens": lambda g: memory.logit_lens(g.run, g.people, g.run.steps[-1:]),
    "direct_logit_attribution": lambda g: memory.direct_logit_attribution(
        {0: g.model}, g.pairs, unit="head"
    ),
    "edge_attribution": lambda g: circuits.edge_attribution(g.model, g.pairs, ig_steps=2),
    "exact_edges": lambda g: circuits.exact_edges(g.model, g.pairs, 4),
    "faithfulness_curve": lambda g: circuits.faithfulness_curve(
        g.model, g.pairs, circuits.edge_attribution(g.model, g.pairs, "EAP"), (0, 9), n_random=1
    ),
    "circuits_over_steps": lambda g: circuits.circuits_over_steps(
        g.run, g.pairs, g.run.steps[-1:], ig_steps=1
    ),
    "attention_scores": lambda g: interp.attention_scores(g.model, g.people),
    "attention_scores of pairs, with a sink": lambda g: interp.attention_scores(
        g.model, g.pairs, sink=True
    ),
    "attention_to_names": lambda g: interp.attention_to_names(g.run, g.run.steps[-2:], 8),
    "knockout": lambda g: interp.knockout(g.run, g.run.steps[-1:], n_individuals=8),
    "knockout_costs": lambda g: knockout_costs(g.model, g.people, ["control"]),
    "edge_mask": lambda g: edge_mask(spans_of(g.people), "control"),
    "ablations": lambda g: interp.ablations(g.run, g.run.steps[-1:], n_individuals=8),
    "swaps": lambda g: interp.swaps(g.run, g.run.steps[-1:], n=8, sites=("resid_pre",)),
    "recall_edges": lambda g: memory.recall_edges(g.run, g.run.steps[-1:], n=8),
    "measure_memory": lambda g: tuple(
        vars(interp.measure_memory(g.run, g.run.steps[-1:], n_individuals=8)).values()
    ),
    "promoted_logits": lambda g: interp.promoted_logits(g.model, 0, "attention"),
    "locate_fact": lambda g: tuple(
        vars(interp.locate_fact(g.run, 3, "university")).values()
    ),
    "answers": lambda g: interp.answers(g.run, forms="biography", steps=g.run.steps[-1:]),
    "ask": lambda g: (interp.ask(g.run, 3, "university").answers, interp.ask(g.run, 3, "major").swaps),
    "residuals": lambda g: equations.residuals(g.run, g.run.steps[-1:]),
    "residuals of facts": lambda g: equations.residuals(g.model, facts=g.facts),
    "interference": lambda g: equations.interference(
        g.run, n_individuals=4, max_memory_gb=0.001
    ),
    "transplants": lambda g: transplants(g.early, g.model, {"evaluation": g.people}),
    "weight_changes": lambda g: weight_changes(g.early, g.model),
    "value_table": lambda g: knowledge.value_table(g.model, g.people),
    "Run.measure": lambda g: g.run.measure(n_individuals=8),
    "Run.model": lambda g: tuple(Run.load(g.run.path).model().state_dict().values()),
    "Corpus": lambda g: tuple(
        vars(interp.Corpus.from_config(g.run.config).batch(step=3, size=4)).values()
    ),
    "export_huggingface": lambda g: exported(g),
    "swapped_people": lambda g: (interp.swapped_people(g.run.corpus, 8).base,),
    "swapped_attributes": lambda g: (swapped_attributes(g.run.corpus, 8).base,),
    "hooked_transformer": lambda g: tuple(interp.hooked_transformer(g.run.config).parameters()),
    "maps": lambda g: tuple(
        vars(maps.record_maps(g.run, [maps.map_text(g.run.corpus, 3)], g.run.steps[-2:])[0]).values()
    )[2:],
    "adapters": lambda g: adapted(g),
    "merging": lambda g: (
        *merging.task_vector(g.model, g.early).apply(g.early, 0.3).state_dict().values(),
        merging.loss_along_line(g.run, g.early, 2, splits="train", n_individuals=4),
    ),
    "facts": lambda g: (g.facts.known(g.model), g.facts.pairs().source_position, g.facts.texts.tokens),
    "contradiction_table": lambda g: contradiction_table(g.model, corpus=contradicted(g)),
    "training_costs": lambda g: training_costs(g.run),
    "figure": lambda g: interp.plots.learning_curves(g.run).to_json(),
}  # fmt: skip


def exact(result: Any) -> Any:
    """A result down to its bits, in a form that compares."""
    if isinstance(result, tuple):
        return tuple(map(exact, result))
    if isinstance(result, pd.DataFrame):
        return result.to_csv(index=False)  # all digits; what pandas calls text is its own affair
    if isinstance(result, torch.Tensor):
        return result.dtype, tuple(result.shape), result.detach().numpy().tobytes()
    return result.tobytes() if isinstance(result, np.ndarray) else repr(result)


@pytest.fixture(scope="module")
def given(short_run: Run) -> Given:
    return Given(short_run)


@pytest.fixture(scope="module")
def clean(given: Given) -> dict[str, Any]:
    return {name: exact(measure(given)) for name, measure in MEASURES.items()}


FAST = ("no gradients", "inference mode", "float64", "another device", "autocast")
"""The states in which runs are trained by the fast tests; `make test-slow` has them all."""
TOGETHER = ("no gradients", "float64", "another device", "autocast")
"""Those in which the fast tests measure at once: each by itself is for `make test-slow`."""


def marked(state: str, *values: str) -> Any:
    return pytest.param(state, *values, marks=[] if state in FAST else pytest.mark.slow)


@contextmanager
def several_at_once() -> Iterator[None]:
    with ExitStack() as states:
        for state in TOGETHER:
            states.enter_context(STATES[state]())
        yield


MEASURED_IN = {"several at once": several_at_once, **STATES}
NOT_SLOW = ("several at once", "inference mode")


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(state, marks=[] if state in NOT_SLOW else pytest.mark.slow)
        for state in MEASURED_IN
    ],
)
def test_measures_in_every_state(state: str, given: Given, clean: dict[str, Any]) -> None:
    with MEASURED_IN[state]():
        found = {name: exact_in_default_state(measure(given)) for name, measure in MEASURES.items()}
    assert [name for name in MEASURES if found[name] != clean[name]] == []


def exact_in_default_state(result: Any) -> Any:
    with default_state():
        return exact(result)


IN_BF16 = ("autocast", "autocast without a context", "fast products", "no oneDNN")


@pytest.mark.parametrize(
    ("state", "precision"),
    [*(marked(s, "fp32") for s in STATES), *(marked(s, "bf16") for s in IN_BF16)],
)
def test_a_run_in_every_state(
    state: str, precision: str, short: Config, trained: Callable[[Config], Run], tmp_path: Path
) -> None:
    config = short.with_settings(**{"training.precision": precision, "training.n_steps": 4})
    expected = contents(trained(config).path)
    with STATES[state]():
        interp.train(config, tmp_path / "run", progress=False)
    assert contents(tmp_path / "run") == expected


def test_pythons_own_generator(child: Callable[..., Any], short_run: Run, tmp_path: Path) -> None:
    code = """
import random, interp
before = random.getstate()
run = interp.Run.load(out[0])
interp.train(run.config, out[1], progress=False)
interp.swaps(run, run.steps[-1:], n=8, sites=("resid_pre",))
interp.measure_memory(run, run.steps[-1:], n_individuals=16)
assert random.getstate() == before
"""
    process = child(code, (str(short_run.path), str(tmp_path / "run")))
    assert process.wait() == 0, process.error


def test_an_associative_memory(tmp_path: Path) -> None:
    settings = {"pretraining.n_pairs": 20, "pretraining.n_steps": 4, "finetuning.n_steps": 4}
    config = AssociativeMemoryConfig().with_settings(**settings)
    run = associative_memory.train(config, tmp_path / "clean", progress=False)
    for number, state in enumerate(("no gradients", "float64", "another device", "autocast")):
        out = tmp_path / str(number)
        with STATES[state]():
            found = associative_memory.train(config, out, progress=False).movement()
        assert contents(out) == contents(run.path)
        pd.testing.assert_frame_equal(found, run.movement(), rtol=0, atol=0)


def test_a_measure_of_ones_own_may_change_the_state(given: Given) -> None:
    """And what it calls is as everywhere."""

    def measure(model: Any) -> pd.DataFrame:
        with torch.autocast("cpu", torch.bfloat16):
            return interp.patch(model, given.pairs, GRID)

    found = dict(interp.series.over_steps(given.run, measure, given.run.steps[-1:]))
    expected = interp.patch(given.model, given.pairs, GRID)
    pd.testing.assert_frame_equal(found[given.run.steps[-1]], expected, rtol=0, atol=0)


def test_threads_with_different_states() -> None:
    """A setting of the process is put back when the last thread has ended, not under another's feet."""
    seen: list[torch.dtype] = []
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        with default_state():
            inside.set()
            go_on.wait(10)
            seen.append(torch.get_default_dtype())

    with STATES["float64"]():
        with default_state():
            other = threading.Thread(target=wait)
            other.start()
            inside.wait(10)
        go_on.set()
        other.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64


def test_two_threads_on_one_model(given: Given) -> None:
    model = given.run.model()
    model.add_hook("embed.hook_out", lambda value, hook: value)  # whole passes, through hooks
    jobs: list[Callable[[], Any]] = [
        lambda: interp.patch(model, given.pairs, Grid("resid_pre", "each", aligned=True)),
        lambda: interp.patch(model, given.pairs, Grid("mlp_out", "each", aligned=True)),
        lambda: interp.attribution(model, given.pairs, Grid("z", "each", aligned=True)),
        lambda: interp.attention_scores(model, given.people),
        lambda: transplants(model, given.early, {"evaluation": given.people}),
    ]
    alone = [exact(job()) for job in jobs]
    found: dict[int, Any] = {}
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: exact(jobs[n % len(jobs)]())}))
            for n in range(2 * len(jobs))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(switching)
    assert [found.get(n) == alone[n % len(jobs)] for n in range(2 * len(jobs))] == [True] * 10


@pytest.mark.parametrize("fused", [True, False])
def test_another_thread_that_runs_the_model_itself(given: Given, fused: bool) -> None:
    """It is not seen by an analysis, and does not see the analysis' edits."""
    model = given.run.model()
    if not fused:
        model.add_hook("embed.hook_out", lambda value, hook: value)
    tokens = given.people.tokens
    jobs: list[Callable[[], Any]] = [
        lambda: interp.patch(model, given.pairs, Grid(("z", "mlp_out"), "predicts value")),
        lambda: interp.attribution(model, given.pairs, Grid("z", "each", aligned=True)),
        lambda: interp.attention_scores(model, given.people),
        lambda: memory.ablation_costs(model, given.people),
    ]
    alone = [exact(job()) for job in jobs]
    with torch.no_grad():
        expected = model(tokens)
    stop, wrong, seen = threading.Event(), [], []

    def use() -> None:
        while not stop.is_set():
            with torch.no_grad():
                seen.append(1)
                if not torch.equal(model(tokens), expected):
                    wrong.append("edited")

    other = threading.Thread(target=use)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        other.start()
        found = [exact(job()) for job in jobs for _ in range(2)]
    finally:
        stop.set()
        other.join(60)
        sys.setswitchinterval(switching)
    assert found == [one for one in alone for _ in range(2)]
    assert seen
    assert not wrong


def test_an_analysis_inside_a_users_hooks(given: Given) -> None:
    """In the same thread, and in another one that the user waits for."""
    model = given.run.model()
    mask = edge_mask(spans_of(given.people), "attribute_to_name")
    found: list[Any] = []
    with cut_edges(model, mask):
        inside = exact(interp.attention_scores(model, given.people))
        other = threading.Thread(
            target=lambda: found.append(exact(interp.attention_scores(model, given.people)))
        )
        other.start()
        other.join(60)
    assert found == [inside]
    assert inside != exact(interp.attention_scores(model, given.people))


def test_weights_made_in_inference_mode(given: Given) -> None:
    """What needs no gradient works; the rest says in one line why not."""
    with torch.inference_mode():
        assert not next(given.run.model().parameters()).is_inference()
    model = given.run.model()
    with torch.inference_mode():
        for name, parameter in list(model.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            new = torch.nn.Parameter(parameter.clone(), requires_grad=False)
            setattr(model.get_submodule(owner), leaf, new)
    assert next(model.parameters()).is_inference()
    expected = exact(interp.patch(given.model, given.pairs, GRID))
    assert exact(interp.patch(model, given.pairs, GRID)) == expected
    for refused in (
        lambda: interp.attribution(model, given.pairs, GRID),
        lambda: transplants(model, given.early, {"evaluation": given.people}),
    ):
        with pytest.raises(ArgumentError, match="inference_mode") as error:
            refused()
        assert "\n" not in str(error.value)


@pytest.fixture
def two_folders(
    smoke_run: Run, short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Two folders in which `run` is another run; the working directory is somebody else's afterwards."""
    monkeypatch.chdir(tmp_path)
    for name, run in (("a", smoke_run), ("b", short_run)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run").symlink_to(run.path)
    return [tmp_path / "a", tmp_path / "b"]


def test_a_relative_path_and_another_working_directory(two_folders: list[Path]) -> None:
    os.chdir(two_folders[0])
    run = interp.Run.load("run")
    os.chdir(two_folders[1])
    assert run.path == two_folders[0] / "run"
    assert "Run('run')" in repr(run)
    expected = interp.Run.load(two_folders[0] / "run")
    assert run.steps == expected.steps
    assert exact(tuple(run.model().state_dict().values())) == exact(
        tuple(expected.model().state_dict().values())
    )


def test_workers_after_another_working_directory(two_folders: list[Path]) -> None:
    """Workers live on, in the working directory of the call that started them."""
    for folder in two_folders:
        os.chdir(folder)
        run = interp.Run.load("run")
        found = interp.attention_to_names(run, run.steps[-2:], 8, workers=2)
        expected = interp.attention_to_names(interp.Run.load(folder / "run"), run.steps[-2:], 8)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=0)


def test_training_while_the_working_directory_changes(
    short: Config, short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def progress(share: float | int, note: str = "") -> None:
        os.chdir(tmp_path / "elsewhere")

    interp.train(short, "run", progress=progress)
    assert contents(tmp_path / "run") == contents(short_run.path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(RunError, match="working directory"):
        interp.Run.load("run")
