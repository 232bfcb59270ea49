"""The report on facts: what models know of them, and how they recall it; any model, any series."""

from pathlib import Path
from typing import Any, cast

import pandas as pd

from interp import plots
from interp.charts import Axis, Look, curves, describe
from interp.charts.style import PALETTE
from interp.facts.measured import FactMeasures
from interp.files import write_text
from interp.interventions import LOGIT_DIFFERENCE
from interp.maps import (
    TrainingInfo,
    asset,
    label_texts,
    map_steps,
    record_maps,
    view_settings,
    words_of,
)
from interp.report.elements import Embed, LeftOut, Section, Table
from interp.report.html import page_to_write, render
from interp.report.maps import maps_caption
from interp.series import AnySeries
from interp.torch_state import default_state

_N_MAPS = 4
_N_ROWS = 40  # of the table of facts; all are in the CSV
_FAITHFUL = 0.8  # share of the answer that a circuit has to keep to be named
_FOLLOWS = 0.5  # share of predictions that follow a swap where it is said to decide the answer

_TERMS = {
    "fact": "A subject, a relation, and the answer that is true; a wording makes it a text.",
    "first guess": "The answer's first token is the most probable of all tokens.",
    "probability of the answer": "Of all its tokens, each given the text and the tokens before.",
    "subject": "The words that say whom or what a fact is about; its last token is where they are complete.",
    "predicts answer": "The last position before the answer, whose prediction is read.",
    "chance": "What attention that is uniform over all earlier tokens would give.",
    "role": "By the attention score that is farthest above chance (interp.attention.head_roles).",
    "follow": "A prediction follows a swap if it becomes the answer of the other subject.",
    "indirect effect": "What a restored state gives back of the answer's probability.",
    "faithfulness": "How much of the difference between the two answers a circuit keeps: 0 none, 1 all.",
    "contribution": (
        "What a part of the model adds to the logit of the true answer against the mean of the relation's "
        "other answers, with norms and attention held at what they were."
    ),
}


@default_state()
def write_facts_report(
    series: AnySeries, measured: FactMeasures, path: Path | str, name: str
) -> Path:
    """Writes one self-contained page on facts.

    Args:
        series: The models, for their attention maps.
        measured: What `interp.facts.measure_facts` returned of them.
        path: The HTML file; .html is added to a name without an ending.
        name: What the model is called.

    Returns:
        The path of the file.

    Raises:
        RunError: something else than an older page lies there.
        StorageError: the file cannot be written.
    """
    target = page_to_write(path)
    sections = [
        _known(measured),
        _attention(measured),
        _swaps(measured),
        _emergence(measured),
        _trace(measured),
        _lens(measured),
        _circuit(measured),
        _located(measured),
        _maps(series, measured),
        Section("Glossary", "glossary", terms=_TERMS),
    ]
    write_text(target, render(f"Facts in {name}", _headline(measured), sections))
    return target


def _headline(measured: FactMeasures) -> str:
    at_last = _last(measured.known)
    n, n_known = len(at_last), int((at_last["rank"] == 1).sum())
    steps = measured.steps
    over = f", at {len(steps)} checkpoints up to step {steps[-1]:,}" if len(steps) > 1 else ""
    return f"{n} texts that ask for a fact, of which the model answers {n_known} right{over}."


def _last(table: pd.DataFrame) -> pd.DataFrame:
    at_last: pd.DataFrame = table[table["step"] == table["step"].max()]
    return at_last


def _known(measured: FactMeasures) -> Section:
    known = measured.known
    at_last = _last(known)
    share = float((at_last["rank"] == 1).mean())
    by_relation = (
        at_last.assign(first=at_last["rank"] == 1)
        .groupby(["relation", "wording"], sort=False)
        .agg(
            n=("rank", "size"), first=("first", "mean"), rank=("rank", "median"),
            p=("answer_probability", "mean"),
        )
        .reset_index()
    )  # fmt: skip
    summary = Table(
        "Of each relation and wording: texts, share of them whose answer is the model's first guess, median "
        "rank of the answer's first token, mean probability of the whole answer.",
        ("relation", "wording", "texts", "first guess", "median rank", "probability"),
        [
            (str(r.relation), f"{r.wording}", f"{r.n}", f"{r.first:.0%}", f"{r.rank:,.0f}", f"{r.p:.3f}")
            for r in by_relation.itertuples()
        ],
    )  # fmt: skip
    some = at_last.sort_values("rank", kind="stable").head(_N_ROWS)
    more = "" if len(some) == len(at_last) else f" The first {len(some)} of {len(at_last)}."
    single = Table(
        f"Every text: rank and probability of its answer.{more}",
        ("subject", "relation", "answer", "wording", "rank", "probability"),
        [
            (str(r.subject), str(r.relation), str(r.answer), f"{r.wording}", f"{r.rank:,}",
             f"{r.answer_probability:.3f}")
            for r in some.itertuples()
        ],
    )  # fmt: skip
    figures = {"known-over-training": _known_figure(measured)} if len(measured.steps) > 1 else {}
    return Section(
        "What is known",
        "known",
        sentence=(
            f"The answer is the model's first guess in {share:.0%} of the texts, with a mean probability of "
            f"{at_last['answer_probability'].mean():.2f}."
        ),
        text=list(measured.remarks),
        figures=figures,
        tables=[summary, single],
        downloads={"known": known},
    )


def _known_figure(measured: FactMeasures) -> object:
    known = measured.known.assign(first=(measured.known["rank"] == 1).astype(float))
    long = known.melt(
        ["step", "relation"], ["first", "answer_probability"], var_name="metric", value_name="value"
    )
    looks = {
        "first": Look(PALETTE["blue"], name="first guess (share of texts)"),
        "answer_probability": Look(PALETTE["orange"], "dash", name="probability of the answer"),
    }
    figure = curves(
        long, line="metric", looks=looks, facet="relation", axis=Axis("share, probability"),
        phases=measured.phases, titles={one: one for one in known["relation"].unique()},
        what="known facts",
    )  # fmt: skip
    return describe(
        figure,
        "Facts known over training",
        "Of each relation, the share of texts whose answer is the model's first guess, and the mean "
        "probability of the whole answer. Look for when a relation is learned.",
    )


def _attention(measured: FactMeasures) -> Section | LeftOut:
    title = "Attention to the subject"
    scores = measured.tables.get("attention")
    if scores is None:
        return LeftOut(measured.not_measured["attention"], title=title, nothing_there=True)
    roles, at_last = measured.tables["roles"], _last(scores)
    excess = at_last[at_last["metric"] == "attribute_to_name"].dropna(subset=["value"])
    excess = excess.assign(excess=excess["value"] - excess["chance"])
    top = excess.sort_values("excess", ascending=False, kind="stable").head(3)
    named = ", ".join(f"{r.layer}.{r.head} ({r.value:.2f})" for r in top.itertuples())
    counts = roles["role"].value_counts()
    figures = {"head-roles": plots.head_roles(roles, measured.phases)}
    if scores["step"].nunique() > 1:
        figures["attention-to-names"] = plots.attention_to_names(scores, measured.phases)
    return Section(
        title,
        "attention",
        sentence=(
            f"The heads that attend most to the subject from where the answer is predicted: {named}."
        ),
        text=[
            "The share of attention that goes from the position that predicts the answer to the subject, "
            "to the words of the relation, to the first token; and the role of each head by its strongest "
            "score.",
            f"Roles of the {len(roles)} heads: "
            + ", ".join(f"{role} {n}" for role, n in counts.items())
            + ".",
        ],
        figures=figures,
        downloads={"attention": scores, "roles": roles},
    )


def _swaps(measured: FactMeasures) -> Section | LeftOut:
    title = "Another subject's activations"
    table = measured.tables.get("swaps")
    if table is None:
        return LeftOut(measured.not_measured["swaps"], title=title, nothing_there=True)
    return Section(
        title,
        "swaps",
        sentence=_swap_sentence(table),
        text=[
            "In pairs of prompts that differ in the subject, an activation of one is put into the other: "
            "into the residual stream before a layer, the output of its attention, or of its MLP. The "
            "prediction follows if the model now gives the other subject's answer."
        ],
        figures={
            "swap-follows": plots.patch_heatmap(table, "follows"),
            "swap-logits": plots.patch_heatmap(table, LOGIT_DIFFERENCE),
        },
        downloads={"swaps": table},
    )


def _swap_sentence(table: pd.DataFrame) -> str:
    """Through which layer the subject decides, and from which on the position that predicts."""
    chosen = table[(table["metric"] == "follows") & (table["site"] == "resid_pre")]
    by = chosen.pivot_table("value", "layer", "position", sort=False).sort_index()
    subject, read = by["subject"], by["predicts answer"]
    deciding = subject.index[subject >= _FOLLOWS]
    reading = read.index[read >= _FOLLOWS]
    parts = []
    if len(deciding):
        layer = int(deciding.max())
        parts.append(
            f"the stream at the subject decides the answer before layer {layer} and earlier "
            f"({subject[layer]:.0%} of the predictions follow)"
        )
    if len(reading):
        layer = int(reading.min())
        parts.append(
            f"the stream at the position that predicts it does before layer {layer} and later "
            f"({read[layer]:.0%})"
        )
    if not parts:
        return "No single position's residual stream decides the answer."
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _emergence(measured: FactMeasures) -> Section | LeftOut:
    title = "Order of emergence"
    steps = measured.tables.get("emergence")
    if steps is None:
        why = measured.not_measured.get("emergence", "there are fewer than three checkpoints")
        return LeftOut(why, title=title, nothing_there=True)
    dated = steps.dropna(subset=["step"]).sort_values("step", kind="stable")
    return Section(
        title,
        "emergence",
        sentence=(
            "By the step at which a mechanism reaches half of its final strength: "
            + ", ".join(f"{r.mechanism} {r.step:,.0f}" for r in dated.itertuples())
            + "."
        ),
        text=[
            f"Not measured, {name}: {why}"
            for name, why in measured.not_measured.items()
            if "/" in name or name in ("memory", "edges")
        ],
        figures={
            "order-of-emergence": plots.emergence(
                steps.assign(seed=0), measured.tables["strengths"].assign(seed=0), measured.phases
            )
        },
        downloads={"strengths": measured.tables["strengths"], "emergence": steps},
    )


def _trace(measured: FactMeasures) -> Section | LeftOut:
    title = "Causal tracing"
    table = measured.tables.get("trace")
    if table is None:
        return LeftOut(measured.not_measured["trace"], title=title, nothing_there=True)
    stream = table[table["site"] == "resid_pre"]
    best = stream.loc[stream["layer"] > 0].sort_values("indirect_effect", kind="stable")
    parts = table[table["site"] != "resid_pre"].sort_values("indirect_effect", kind="stable")
    part = parts.iloc[-1]
    what = {"attn_out": "attention", "mlp_out": "MLPs"}[str(part["site"])]
    clean, corrupted = float(table["clean"].iloc[0]), float(table["corrupted"].iloc[0])
    return Section(
        title,
        "causal-tracing",
        sentence=(
            f"Noise on the subject lowers the answer's probability from {clean:.2f} to {corrupted:.2f}; of "
            f'attention and MLPs, {what} around layer {part["layer"]} at "{part["position"]}" restore '
            f"most ({part['indirect_effect']:+.2f})."
        ),
        text=[
            "The embeddings of the subject's tokens get noise; then the clean state of one site is put back "
            "(of attention and MLPs that of a window of layers). A single state behind the embedding "
            f"restores at most {float(best['restored'].max()):.2f}."
        ],
        figures={"trace": plots.causal_trace(table)},
        downloads={"causal-trace": table},
        folded=True,
    )


def _lens(measured: FactMeasures) -> Section | LeftOut:
    title = "Logit lens"
    table = measured.tables.get("lens")
    if table is None:
        return LeftOut(measured.not_measured["lens"], title=title, nothing_there=True)
    return Section(
        title,
        "logit-lens",
        text=[
            "What the stream before each layer would predict of the answer if no later layer followed."
        ],
        figures={"lens": plots.logit_lens(table)},
        downloads={"logit-lens": table},
        folded=True,
    )


def _circuit(measured: FactMeasures) -> Section | LeftOut:
    title = "A circuit"
    edges, curve = measured.tables.get("circuit"), measured.tables.get("faithfulness")
    if edges is None or curve is None:
        return LeftOut(measured.not_measured["circuit"], title=title, nothing_there=True)
    own = curve[(curve["circuit"] == "scores") & (curve["faithfulness"] >= _FAITHFUL)]
    sentence = ""
    if len(own):
        smallest = own.sort_values("edges").iloc[0]
        random = curve[(curve["circuit"] == "random") & (curve["size"] == smallest["size"])]
        sentence = (
            f"{smallest['edges']:,} of {curve['edges'].max():,} edges keep {smallest['faithfulness']:.0%} of "
            f"what tells the two subjects' answers apart; as many random ones "
            f"{random['faithfulness'].mean():.0%}."
        )
    return Section(
        title,
        "circuit",
        sentence=sentence,
        text=[
            "Edges between embedding, heads, MLPs and logits, by what each carries of the difference "
            "between two subjects (attribution with integrated gradients). A circuit keeps its edges, and "
            "all others carry what they carry for the other subject."
        ],
        figures={
            "circuit-graph": plots.circuit_graph(
                edges, heads_per_group=int(edges["heads_per_group"].iloc[0])
            ),
            "circuit-faithfulness": plots.faithfulness(curve),
        },
        tables=_edge_tables(measured.tables.get("edges")),
        downloads={"circuit-edges": edges, "faithfulness": curve},
        folded=True,
    )


def _edge_tables(edges: pd.DataFrame | None) -> list[Table]:
    """Since when the strongest edges have been among the strongest."""
    if edges is None:
        return []

    def node(row: Any, side: str) -> str:
        kind, *place = (getattr(row, f"{side}{part}") for part in ("", "_layer", "_head"))
        return f"{kind} {'.'.join(str(number) for number in place if not pd.isna(number))}".strip()

    rows = [
        (
            node(row, "sender"),
            node(row, "receiver"),
            "" if pd.isna(row.receiver_input) else str(row.receiver_input),
            f"{row.first_step:,}",
            f"{row.rank}",
            f"{row.score:+.2f}",
        )
        for row in cast(Any, edges.itertuples())
    ]
    return [
        Table(
            "The strongest edges of the last checkpoint: from which step on each has been among the "
            "strongest at every checkpoint, its rank and score (logits) in the end.",
            ("from", "to", "input", "since step", "rank", "score"),
            rows,
        )
    ]


def _located(measured: FactMeasures) -> Section | LeftOut:
    title = "One fact"
    fact = measured.located
    if fact is None:
        why = measured.not_measured.get("located", "no fact could be located")
        return LeftOut(why, title=title, nothing_there=True)
    first, *_ = (line.strip() for line in repr(fact).split("\n"))
    strongest = fact.strongest_heads(n=1).iloc[0]
    return Section(
        title,
        "one-fact",
        sentence=(
            f"The {fact.attribute} of {fact.name}: head {strongest['layer']}.{strongest['head']} adds most "
            f"to {fact.value} ({strongest['contribution']:+.1f} logits)."
        ),
        text=[first],
        figures={"located-fact": plots.located_fact(fact)},
        downloads={"located-fact": fact.components},
        folded=True,
    )


def _maps(series: AnySeries, measured: FactMeasures) -> Section | LeftOut:
    title = "Attention maps"
    if "attention" not in measured.tables:
        return LeftOut(measured.not_measured["attention"], title=title, nothing_there=True)
    facts = measured.facts.select(range(min(_N_MAPS, len(measured.facts))))
    table = facts.table
    texts = label_texts(
        facts.texts, facts.tokenizer,
        names=[f"{r.subject} · {r.relation}" for r in table.itertuples()],
        relations=[[str(r.relation)] for r in table.itertuples()],
    )  # fmt: skip
    records = record_maps(series, texts, map_steps(series, texts))
    words = words_of(records)
    roles = measured.tables["roles"]
    numbers = roles[["step", "layer", "head"]].astype(int).to_numpy().tolist()
    at = {
        (one[0], one[1], one[2]): str(role)
        for one, role in zip(numbers, roles["role"], strict=True)
    }
    info = TrainingInfo(phases=measured.phases, roles=at)
    anchor = "attention-maps"
    view = Embed(
        anchor,
        "Attention, token by token",
        maps_caption(len(records[0].steps)),
        view="attention",
        settings=view_settings(records, words, facts.tokenizer, info) | {"fragment": anchor},
        packed={
            f"{kind}-{record.text.number}": data
            for record in records
            for kind, data in record.packed(words).items()
        },
        script=asset("attention.js"),
        style=asset("attention.css"),
        fallback="Attention maps need JavaScript.",
    )
    return Section(title, "maps", embeds=[view])
