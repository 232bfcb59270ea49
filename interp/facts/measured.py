"""The measures of a series of models on facts, as a report shows them."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
from transformer_lens.model_protocol import TransformerLensModel

from interp.attention import attention_to_names, head_roles
from interp.circuits import (
    circuit_edges,
    circuits_over_steps,
    edge_attribution,
    edge_emergence,
    faithfulness_curve,
)
from interp.errors import ArgumentError, whole_number
from interp.facts.facts import Facts
from interp.interventions import Grid, causal_trace, patch
from interp.memory import (
    emergence_steps,
    logit_lens,
    measure_memory,
    mechanism_strengths,
    recall_edges,
    swaps,
)
from interp.memory.locate import locate_facts
from interp.memory.located_fact import LocatedFact
from interp.memory.measure import FactDraws
from interp.phases import Phases
from interp.progress import Progress, parts, silent
from interp.series import (
    AnySeries,
    Checkpoints,
    as_series,
    informative_steps,
    models_at,
    table_over_steps,
)
from interp.torch_state import default_state

_WINDOW = 10  # layers, as Meng et al. restore; a third of a smaller model's
_N_SAMPLES = 3  # of noise
_N_EDGES = 40  # of the circuit that is shown
SWAP_SITES = ("resid_pre", "attn_out", "mlp_out")
SWAP_POSITIONS = ("subject", "last subject token", "relation", "predicts answer")


@dataclass(frozen=True)
class FactMeasures:
    """What was measured on facts.

    Attributes:
        facts: The texts that the measures read: those whose answer the last model guesses.
        known: For all texts, what is known at each step: `step`, then the columns of `Facts.known`.
        phases: Of the training, if they are known.
        tables: By name. Over training: "attention" (`attention_to_names`) and "lens" (`logit_lens`); of
            three checkpoints or more "strengths" (`mechanism_strengths`), "emergence"
            (`emergence_steps`) and "edges" (from when edges are among the strongest to stay,
            `edge_emergence`). Of the last step: "roles" (`head_roles`), "swaps" (`patch` with another
            subject), "trace" (`causal_trace`), "circuit" (the strongest edges, `circuit_edges`,
            with `heads_per_group`, how many heads share keys and values) and
            "faithfulness" (`faithfulness_curve`).
        located: One fact at the last step; None if it could not be located.
        not_measured: Why a measure is missing, by its name.
        remarks: What the measures warned of, such as scores that these texts do not have.
    """

    facts: Facts
    known: pd.DataFrame
    phases: Phases | None
    tables: Mapping[str, pd.DataFrame]
    located: LocatedFact | None = None
    not_measured: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def steps(self) -> list[int]:
        """The steps at which knowledge was measured."""
        return sorted(int(step) for step in self.known["step"].unique())


@default_state()
def known_over_steps(
    series: AnySeries, facts: Facts, *, progress: Progress = silent
) -> pd.DataFrame:
    """What is known of facts over training: `step`, then the columns of `Facts.known`."""
    return table_over_steps(series, partial(_known, facts=facts), progress=progress)


@default_state()
def measure_facts(
    series: AnySeries,
    facts: Facts,
    *,
    draws: FactDraws | None = None,
    n_pairs: int = 16,
    n_traced: int = 8,
    progress: Progress = silent,
) -> FactMeasures:
    """Everything that a report on facts shows.

    Knowledge is measured of all texts at every step. All else is measured on the texts whose answer is the
    last model's first guess: where nothing is recalled, nothing can be traced.

    Args:
        series: Models by step, checkpoints (`interp.Series`), or a run.
        facts: Facts in tokens of the models' own tokenizer.
        draws: Facts in several wordings, for keys, values and probes; by default `facts.draws()`, where the
            facts have four wordings each.
        n_pairs: On how many pairs subjects are swapped.
        n_traced: How many texts are traced with noise; on as many pairs circuits are found.
        progress: Is told how far it is.

    Raises:
        ArgumentError: the last model knows none of the facts.
    """
    if not isinstance(facts, Facts):
        raise ArgumentError(f"facts are {type(facts).__name__}; give interp.Facts.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        measured = _measured(as_series(series), facts, draws, n_pairs, n_traced, progress)
    remarks = dict.fromkeys(str(one.message) for one in said if one.category is UserWarning)
    return replace(measured, remarks=tuple(remarks))


def _measured(
    series: Checkpoints,
    facts: Facts,
    draws: FactDraws | None,
    n_pairs: int,
    n_traced: int,
    progress: Progress,
) -> FactMeasures:
    n_pairs = whole_number(n_pairs, "n_pairs", 1)
    n_traced = whole_number(n_traced, "n_traced", 1)
    of_known, of_attention, of_swaps, of_fact, of_emergence = parts(progress, (10, 15, 45, 5, 25))
    known = known_over_steps(series, facts, progress=of_known)
    last = int(known["step"].max())
    at_last = known[known["step"] == last].reset_index(drop=True)
    if not (at_last["rank"] == 1).any():
        raise ArgumentError(
            f"The model knows none of these {len(facts)} texts: the best rank of an answer is "
            f"{at_last['rank'].min()}. Give facts that it knows, or other wordings (`interp facts` shows "
            "what is known)."
        )
    chosen = facts.select((at_last["rank"] == 1).to_numpy())
    tables: dict[str, pd.DataFrame] = {}
    lacking: dict[str, str] = {}

    def add(name: str, measure: Callable[[], pd.DataFrame]) -> None:
        try:
            tables[name] = measure()
        except ArgumentError as error:  # this model or these facts do not have it
            lacking[name] = str(error)

    steps = informative_steps(series)
    add(
        "attention",
        lambda: attention_to_names(series, steps, texts=chosen.texts, progress=of_attention),
    )
    if "attention" in tables:
        scores = tables["attention"]
        tables["roles"] = head_roles(scores[scores["step"] == last])
    add("lens", lambda: logit_lens(series, chosen.texts, steps, progress=silent))
    located = None
    for _, model in models_at(series, [last]):
        of_swaps(0.0, "another subject's activations")
        add("swaps", partial(_swaps, model, chosen, n_pairs))
        of_swaps(0.3, "causal tracing")
        add("trace", partial(_trace, model, chosen, n_traced))
        of_swaps(0.7, "a circuit")
        add("circuit", partial(_circuit, model, chosen, n_traced, tables))
    of_fact(0.0, "one fact")
    try:
        best = at_last[at_last["rank"] == 1].sort_values("answer_probability", ascending=False)
        row = best.iloc[0]
        prompt = facts.prompt(row["subject"], row["relation"], int(row["wording"]))
        (located,) = locate_facts(series, [prompt], [last], history=steps)
    except ArgumentError as error:
        lacking["located"] = str(error)
    if len(series.steps) > 2:
        with suppress(ArgumentError):  # fewer than four wordings of each fact
            draws = facts.draws() if draws is None else draws
        try:
            tables |= _emergence(
                series,
                steps,
                chosen,
                known,
                tables,
                draws,
                n_pairs,
                n_traced,
                of_emergence,
                lacking,
            )
        except ArgumentError as error:
            lacking["emergence"] = str(error)
    return FactMeasures(chosen, known, series.known_phases, tables, located, lacking)


def _emergence(
    series: Checkpoints,
    steps: list[int],
    chosen: Facts,
    known: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    draws: FactDraws | None,
    n_pairs: int,
    n_traced: int,
    progress: Progress,
    lacking: dict[str, str],
) -> dict[str, pd.DataFrame]:
    """The order in which mechanisms emerge; what cannot be measured is NaN, and `lacking` says why."""
    of_memory, of_swaps, of_edges = parts(progress, (40, 40, 20))
    found: dict[tuple[str, str], pd.DataFrame] = {}
    if "attention" in tables:
        found["attention", "scores"] = tables["attention"]
    pairs = chosen.pairs()[:n_pairs]
    makers: dict[tuple[str, str], Callable[[], pd.DataFrame]] = {
        ("interventions", "swaps"): lambda: swaps(
            series, steps, pairs={"any": pairs}, progress=of_swaps
        ),
        ("interventions", "edges"): lambda: recall_edges(
            series, steps, pairs=pairs, progress=of_edges
        ),
    }
    for name, make in makers.items():
        try:
            found[name] = make()
        except ArgumentError as error:
            lacking["/".join(name)] = str(error)
    if draws is None:
        lacking["memory"] = "keys, values and probes need four wordings of every fact"
    else:
        memory = measure_memory(series, steps, facts=draws, progress=of_memory)
        of_memory_tables = {"keys": memory.keys, "values": memory.values, "probes": memory.probes}
        for kind, table in of_memory_tables.items():
            if kind in memory.not_measured:
                lacking[f"memory/{kind}"] = memory.not_measured[kind]
            else:
                found["memory", kind] = table
    edges: dict[str, pd.DataFrame] = {}
    try:
        scores = circuits_over_steps(series, pairs[:n_traced], steps, progress=silent)
        edges["edges"] = edge_emergence(scores, _N_EDGES)
    except ArgumentError as error:  # a model whose edges cannot be told apart
        lacking["edges"] = str(error)
    guessed = known.assign(first=known["rank"] == 1).groupby("step")["first"].mean()
    strengths = mechanism_strengths(found, guessed)
    phases = series.known_phases
    return edges | {
        "strengths": strengths,
        "emergence": emergence_steps(strengths, None if phases is None else phases.at),
    }


def _known(model: TransformerLensModel, facts: Facts) -> pd.DataFrame:
    return facts.known(model)


def _trace(model: TransformerLensModel, facts: Facts, n_traced: int) -> pd.DataFrame:
    """Single states of the stream, and windows of attention and MLP outputs."""
    texts = facts.texts[:n_traced]
    window = max(1, min(_WINDOW, model.cfg.n_layers // 3))
    where = ("last subject token", "relation", "predicts answer")
    grids = Grid("resid_pre", where), Grid(("attn_out", "mlp_out"), where, window=window)
    traces = [
        causal_trace(model, texts, grid, n_samples=_N_SAMPLES, control=False) for grid in grids
    ]
    return pd.concat(traces, ignore_index=True)


def _circuit(
    model: TransformerLensModel, facts: Facts, n_pairs: int, tables: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """The strongest edges; the faithfulness of circuits goes into the tables beside."""
    pairs = facts.pairs()[:n_pairs]
    scores = edge_attribution(model, pairs)
    tables["faithfulness"] = faithfulness_curve(model, pairs, scores, n_random=2)
    shared = getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
    return circuit_edges(model, scores, _N_EDGES).assign(
        heads_per_group=model.cfg.n_heads // int(shared)
    )


def _swaps(model: TransformerLensModel, facts: Facts, n_pairs: int) -> pd.DataFrame:
    pairs = facts.pairs()[:n_pairs]
    return patch(model, pairs, Grid(SWAP_SITES, SWAP_POSITIONS))
