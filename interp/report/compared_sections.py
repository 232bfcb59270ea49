"""What stages found in compared runs, on common axes."""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp import plots
from interp.maps import BUDGET
from interp.plots import SCORE_NAMES
from interp.plots.sites import OUTPUTS
from interp.report.compared_runs import Compared, common_steps, listed, of_runs, spread, together
from interp.report.elements import LeftOut, Section, Table
from interp.report.maps import maps_embed, no_maps
from interp.seeds import none_of
from interp.studies.patching import comparison

_ATTENTION = (
    "name_to_name",
    "attribute_to_name",
    "attribute_to_any_name",
    "attribute_to_type",
    "attribute_sharpness",
)
_SIGNS = {"name grouping": "●", "extraction": "■", "type propagation": "◆", "positional": "▲"}
_SWAPPED = ("every middle name", "every name", "predicts value")
_N_MAPPED = 6
"""Runs whose attention maps are shown."""
_NO_COMMON_STEP = "no step was measured in all of these runs, so there is no common axis"


@of_runs("Held-out people", "held-out")
def held_out(compared: Compared) -> Section | LeftOut:
    """Known against held-out people, of the runs in which both were measured while training."""
    losses = compared.curves("attribute_loss", "held_out")
    has = losses["run"].drop_duplicates().tolist()
    missing = [label for label in compared.labels if label not in has]
    why = f"not measured while training in {listed(missing)}" if missing else ""
    if len(has) < 2:
        return LeftOut(why)
    panels = {}
    for metric, words in (("attribute_loss", "loss (nats)"), ("top_probability", "probability")):
        for split, who in (("evaluation", "known"), ("held_out", "held-out")):
            table = compared.curves(metric, split)
            panels[f"{who}<br>{words}"] = table[table["run"].isin(has)]
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "nats or share",
        "Known and held-out people",
        """Left: known people in new wordings, right: people who were never trained on; above the
        attribute loss, in nats, below the mean probability of the top prediction, a share, against
        training steps, a line for each run. Look for the run whose loss on held-out people rises
        most after its plateau, which is hallucination, and for whether its confidence in them does
        too.""",
    )
    for row, words in enumerate(("attribute loss (nats)", "top probability"), start=1):
        figure.update_yaxes(title_text=words, row=row, col=1)
    return Section(
        sentence=f"The loss on held-out people ends at {spread(_ends(losses), '{:.2f} nats')}.",
        figures={"held-out-curves": figure},
        lacks=[LeftOut(why, title=f"Held-out people of {listed(missing)}")] if missing else [],
    )


@of_runs("Attention to names", "attention", ["attention/scores"])
def attention(compared: Compared, scores: pd.DataFrame) -> Section:
    """Attention to names over training, and the roles of heads in the end."""
    last_layer = scores.groupby("run")["layer"].transform("max")
    of_layer = {"first layer": scores[scores["layer"] == 0]}
    if (last_layer > 0).any():
        of_layer["last layer"] = scores[scores["layer"] == last_layer]
    panels: dict[str, pd.DataFrame] = {}
    levels: dict[str, pd.Series] = {}
    for metric in _ATTENTION:
        for where, own in of_layer.items():
            name = f"{where}<br>{SCORE_NAMES[metric]}".replace(" where a value is predicted", "")
            rows = own[own["metric"] == metric]
            panels[name] = rows.groupby(["run", "step"])["value"].mean().reset_index()
            if not metric.endswith("sharpness"):
                levels[name] = rows.groupby("step")["chance"].mean().dropna()
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "share",
        "Attention to names in all runs",
        """Attention, as a share, against training steps, mean over the heads of a layer, a line for
        each run: from the last name token to the rest of that name; from the position that predicts a
        value to the name of its sentence, to names in any sentence, and to words that tell the
        attribute; at the bottom the sharpness of attention there (0: uniform, 1: one token). Dotted:
        chance. Look for whether runs that leave the plateau earlier attend to names earlier.""",
        n_columns=len(of_layer),
        levels=levels,
    )
    last = scores[(scores["layer"] == last_layer) & (scores["metric"] == "attribute_to_name")]
    of_layers = last.groupby(["run", "step"])["value"].mean().reset_index()
    text = []
    if max(run.config.model.n_layers for run in compared.runs.values()) > 2:
        text.append(
            "Of models with more than two layers, only the first and the last are drawn: those "
            "between have no counterpart in the others. Each run's own report has them."
        )
    roles = compared.results("attention", "roles")
    return Section(
        sentence="Attention in the last layer from where a value is predicted to the name in its "
        f"sentence ends at {spread(_ends(of_layers), '{:.2f}')}.",
        text=text,
        figures={"attention-curves": figure},
        tables=_role_tables(roles) if len(roles) > 1 else [],
    )


@of_runs("Attention maps", "maps")
def attention_maps(compared: Compared) -> Section | LeftOut:
    """The attention maps of the first person of each run, each at its own checkpoints."""
    reasons = {label: no_maps(run) for label, run in compared.runs.items()}
    able = [label for label, why in reasons.items() if not why]
    for label in able[_N_MAPPED:]:
        reasons[label] = (
            f"maps of at most {_N_MAPPED} runs fit here; each run's own report has its maps"
        )
    shown = able[:_N_MAPPED]
    lacks = [
        LeftOut(why, title=f"Attention maps of {label}") for label, why in reasons.items() if why
    ]
    if not shown:
        return LeftOut(lacks[0].why)
    views = [
        maps_embed(compared.runs[label], [0], f"attention-maps-{n}", label, BUDGET // len(shown))
        for n, label in enumerate(shown, 1)
    ]
    text = [
        "What the heads of each run look at in a biography of its first person. Runs of one "
        "population read the same sentences; runs with other seeds have other people."
    ]
    return Section(text=text, embeds=views, lacks=lacks)


@of_runs("Attention knockout", "knockout", ["knockout/costs"])
def knockout(compared: Compared, costs: pd.DataFrame) -> Section | LeftOut:
    """What cutting attention costs in each run, at the last step that all of them have."""
    table = plots.knockout_rows(costs).assign(run=costs["run"])
    whole = table[table["layer"].isna() & table["head"].isna()]
    common = common_steps(whole)
    if not common:
        return LeftOut(_NO_COMMON_STEP)
    last = common[-1]
    at = whole[whole["step"] == last].assign(row=lambda rows: rows["edge"].map(SCORE_NAMES))
    at = at.rename(columns={"cost": "value"})
    figure = plots.compared_rows(
        at,
        compared.labels,
        "cost (nats)",
        f"The cost of cutting attention, step {last:,}",
        f"""How much the attribute loss rises, in nats, when attention edges are cut in all layers, at
        training step {last:,}, the last that all these runs have; a mark for each run, a row for each
        edge; the control cuts as many other tokens. Look for edges whose cost differs between runs
        by more than their controls do.""",
        unit=" nats",
    )
    means = at.pivot_table("value", "edge", "run", sort=False)
    edge = str(means.drop("control", errors="ignore").mean(axis=1).idxmax())
    return Section(
        sentence=f"At step {last:,}, cutting {SCORE_NAMES.get(edge, edge)} costs most, "
        f"{spread(means.loc[edge].dropna().to_dict(), '{:+.2f} nats')}.",
        figures={"knockout-rows": figure},
        tables=[
            _by_run(
                f"Cost of cutting edges in all layers at step {last:,}, in nats.",
                "edge",
                {
                    SCORE_NAMES.get(str(name), str(name)): _formed(row.to_dict(), "+.3f")
                    for name, row in means.iterrows()
                },
                compared.present(costs),
            )
        ],
    )


@of_runs("The order of emergence", "emergence", ["emergence/steps"])
def emergence(compared: Compared, steps: pd.DataFrame) -> Section:
    """When each mechanism emerges in each run."""
    labels = compared.present(steps)
    strengths = compared.results("emergence", "strengths")
    figure = None
    if any(set(labels) <= set(group) for group in compared.groups) and set(strengths) == set(
        labels
    ):
        figure = plots.emergence(
            steps.drop(columns="run"),
            together(strengths).drop(columns="run"),
            [compared.phases[label] for label in labels],
        )
    elif steps["step"].notna().any():
        order = steps.groupby("mechanism", sort=False)["step"].mean().sort_values()
        named = steps.set_index("mechanism").loc[order.index].reset_index()
        figure = plots.compared_rows(
            named.rename(columns={"mechanism": "row", "step": "value"}),
            compared.labels,
            "training (steps, square-root scale)",
            "The order of emergence in all runs",
            """The training step at which each mechanism reaches half of its final strength, a mark for
            each run, from first to last by the mean of the runs; a missing mark: no stronger than
            its control in the end. The axis goes with the square root of steps. A run that ended
            early dates its mechanisms by what they had become by then. Look for mechanisms whose
            order changes from run to run.""",
            of_steps=True,
        )
    extraction = steps[(steps["mechanism"] == "extraction attention") & steps["step"].notna()]
    rows = {
        str(mechanism): {
            str(label): "absent" if pd.isna(step) else f"{step:,.0f}"
            for label, step in own.groupby("run")["step"].first().items()
        }
        for mechanism, own in steps.groupby("mechanism", sort=False)
    }
    return Section(
        sentence="Attention from the value to names emerges "
        + (
            f"at {spread(dict(zip(extraction['run'], extraction['step'], strict=True)), 'step {:,.0f}')}."
            if len(extraction)
            else f"in {none_of(len(compared.runs), 'run')}."
        ),
        figures={} if figure is None else {"emergence-rows": figure},
        tables=[
            _by_run(
                "The step at which each mechanism reaches half of its final strength.",
                "mechanism",
                rows,
                labels,
            )
        ],
    )


@of_runs("Swaps", "swaps", ["interventions/swaps"])
def swaps(compared: Compared, swaps: pd.DataFrame) -> Section | LeftOut:
    """How many predictions follow swapped activations, in each run."""
    labels = compared.present(swaps)
    best = {label: _best_swaps(swaps[swaps["run"] == label]) for label in labels}
    panels: dict[str, pd.DataFrame] = {}
    rows: dict[str, dict[str, str]] = {}
    for position in _SWAPPED:
        curves = {label: own[position] for label, own in best.items() if position in own}
        if not curves:
            continue
        panels[position] = together({label: curve for label, (_, curve) in curves.items()})
        ends = {label: (site, curve.iloc[-1]) for label, (site, curve) in curves.items()}
        rows[position] = {
            label: f"{end['value']:.1%}, control {end['control']:.1%} ({site}, step {end['step']:,.0f})"
            for label, (site, end) in ends.items()
        }
    if not panels:
        return LeftOut("no position of names was swapped")
    figure = plots.compared_panels(
        panels,
        compared.labels,
        "share",
        "Predictions that follow a swap, in all runs",
        """The share of predictions that change to the other person's value when an activation is
        swapped between two people in the same sentences, against training steps, a panel for each
        position, a line for each run: of the attention or MLP output that most predictions of that
        run follow in the end. The table names it, with the control: as many tokens of text swapped.
        Look for runs in which the fact sits elsewhere.""",
        n_columns=1,
        marks=True,
    )
    position, curves_there = next(iter(panels.items()))
    return Section(
        sentence=f"The share of predictions that follow a swap of the strongest output at {position} "
        f"ends at {spread(_ends(curves_there), '{:.1%}')}.",
        figures={"swap-curves": figure},
        tables=[
            _by_run(
                "Share of predictions that follow a swap at each run's last measured step, with the "
                "site (the first of equals).",
                "position",
                rows,
                labels,
            )
        ],
    )


@of_runs("Attention patching", "patching", ["patching/curves"])
def patching(compared: Compared, curves: pd.DataFrame) -> Section | LeftOut:
    """What attention of a run's own checkpoints gains it, in each run."""
    labels = compared.present(curves)
    gains = together(
        {n: comparison(curves[curves["run"] == n].drop(columns="run")) for n in labels}
    )
    whole = (gains["start"] == 0) & (gains["layers"] == "all") & (gains["heads"] == "all")
    common = [step for step in common_steps(gains[whole]) if step > 0]
    if not common:
        return LeftOut(_NO_COMMON_STEP)
    step = common[-1]
    at = gains[whole & (gains["step"] == step)]
    means = at.pivot_table("gain", "reference_step", "run")
    return Section(
        sentence=f"The best reference checkpoint's attention lowers the loss at step {step:,} by "
        f"{spread(means.max().to_dict(), '{:.2f} nats')}.",
        figures={"gains": plots.compared_gains(at, compared.labels, step)},
        tables=[
            _by_run(
                f"Gain in attribute loss at step {step:,} by the attention of a reference checkpoint, "
                "in nats.",
                "reference",
                {
                    f"step {int(str(reference)):,}": _formed(row.to_dict(), "+.3f")
                    for reference, row in means.iterrows()
                },
                labels,
            )
        ],
    )


def _role_tables(roles: Mapping[str, pd.DataFrame]) -> list[Table]:
    """Each head's role at each run's last checkpoint, and how many heads of a layer have each."""
    last = {label: table[table["step"] == table["step"].max()] for label, table in roles.items()}
    ends = {label: int(rows["step"].iloc[0]) for label, rows in last.items()}
    same = len(set(ends.values())) == 1
    titles = {label: label if same else f"{label} (step {end:,})" for label, end in ends.items()}
    when = f"at step {max(ends.values()):,}" if same else "at each run's last checkpoint"
    every = together({titles[label]: rows for label, rows in last.items()})
    every = every.assign(role=every["role"].fillna("none")).sort_values(["layer", "head"])
    by_head = {
        f"{layer}.{head}": {
            run: _signed(role) for run, role in zip(own["run"], own["role"], strict=True)
        }
        for (layer, head), own in every.groupby(["layer", "head"])
    }
    counted = {
        f"layer {layer}": {
            str(run): ", ".join(
                f"{n} {_signed(role)}"
                for role in (*_SIGNS, "none")
                if (n := int((own["role"] == role).sum()))
            )
            for run, own in of_layer.groupby("run")
        }
        for layer, of_layer in every.groupby("layer")
    }
    labels = list(titles.values())
    return [
        _by_run(f"How many heads of each layer have which role {when}.", "layer", counted, labels),
        _by_run(
            f"The role of every head (layer.head) {when}. Heads of runs with other initial weights are "
            "not the same heads: between seeds compare the numbers above.",
            "head",
            by_head,
            labels,
        ),
    ]


def _signed(role: str) -> str:
    return f"{_SIGNS.get(role, '')} {role}".strip()


def _best_swaps(swaps: pd.DataFrame) -> dict[str, tuple[str, pd.DataFrame]]:
    """For each position, the site that most predictions follow in the end, and its curve."""
    rows = plots.swap_rows(swaps)
    # The residual stream at a position holds all that the model has there: that predictions follow it
    # where they are made is no news. What a block adds is.
    rows = rows[rows["site"].isin(OUTPUTS)]
    found = {}
    for position in _SWAPPED:
        own = rows[(rows["position"] == position) & rows["follows"].notna()]
        if own.empty:
            continue
        last = own[own["step"] == own["step"].max()]
        best = last.loc[last["follows"].idxmax()]
        of_site = own[(own["site"] == best["site"]) & (own["layer"] == best["layer"])]
        curve = of_site.groupby("step")[["follows", "control"]].mean().reset_index()
        name = plots.site_name(str(best["site"]), int(best["layer"]))
        found[position] = (name, curve.rename(columns={"follows": "value"}))
    return found


def _by_run(
    caption: str, column: str, rows: Mapping[str, Mapping[str, str]], labels: Sequence[str]
) -> Table:
    """A column for each run; empty where a run has no such row."""
    cells = [(name, *(row.get(label, "") for label in labels)) for name, row in rows.items()]
    return Table(caption, (column, *labels), cells)


def _formed(values: Mapping[object, float], form: str) -> dict[str, str]:
    return {str(label): f"{value:{form}}" for label, value in values.items() if pd.notna(value)}


def _ends(curves: pd.DataFrame) -> dict[str, float]:
    """The last value of each run's curve."""
    known = curves[curves["value"].notna()].sort_values("step")
    return {str(run): float(value) for run, value in known.groupby("run")["value"].last().items()}
