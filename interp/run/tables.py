"""The result tables of a run, one declaration each: who makes it, its columns, their units.

`stages` writes them to `results/<stage>/<name>.csv`, `Run.result` reads them, and `docs/tables.md` is
made from here (`documentation`).
"""

from collections.abc import Callable

from interp.errors import ArgumentError, suggest
from interp.tables import Column, Kind, Table, markdown

_SHARE, _NATS, _LOGITS, _STEPS, _STRENGTH = "share", "nats", "logits", "steps", "share; nats"
_UNKNOWN, _ABSENT = "no score is known", "it is absent in the end, or could not be measured"
_NO_QUERY = "no query of the texts has such keys"
_NO_POSITION = "no pair has such a position"
_NO_POSITIONS = "no pair has such positions"
_NO_EFFECT = "what names do for the answer is less than two standard errors from 0"
_ALL_OR_NONE = "all, or the site has none"
_NOT_MEASURED = "it cannot be measured"
_FEW_PEOPLE = "fewer than five people, or no two of them share a value, or all do"
_ONE_RANK = (
    "all values of the attribute begin with the same token; of `agreement` also where no neuron says "
    "anything of anybody"
)
_ONE_CLASS = "all people have the same value"
_NO_BASELINE = "nobody trained on has a value"
_NO_GRADIENT = "a gradient is 0"


def _column(kind: Kind) -> Callable[..., Column]:
    def column(
        name: str, meaning: str, unit: str = "", missing: str | None = None, needed: bool = True
    ) -> Column:
        return Column(name, kind, meaning, unit, missing, needed)

    return column


_integer, _number, _text = _column("integer"), _column("number"), _column("text")
_boolean = _column("boolean")
_STEP = _integer("step", "the checkpoint", _STEPS)
_LAYER = _integer("layer", "the layer, from 0")
_HEAD = _integer("head", "the head, from 0")
_SEED = _integer("seed", "the seed of the run")
_ATTRIBUTE = _text("attribute", 'an attribute, or "all"')
_MECHANISM = _text("mechanism", "the mechanism (`interp.memory.MECHANISMS`)")
_REFERENCE = "the checkpoint whose attention patterns are used"
_PATCHED = (
    _integer("start", "the step from which patterns are patched", _STEPS),
    _text("layers", 'the patched layers: "all", or their numbers'),
    _text("heads", 'the patched heads of each of them: "all", or their numbers'),
    _integer("step", "the step of training", _STEPS),
)
_CURVES = (
    _SEED,
    _integer("reference_step", _REFERENCE, _STEPS, "the run is unpatched"),
    *_PATCHED,
    _text("metric", "`attribute_loss` or `attribute_accuracy`, on evaluation biographies"),
    _number("value", "its value", "nats; share"),
)


def _of_stage(stage: str, name: str, holds: str, *columns: Column) -> tuple[tuple[str, str], Table]:
    again = "Delete its folder and run `interp reproduce --out {run}` with the same settings again."
    maker = f"`interp reproduce`, stage {stage}"
    return (stage, name), Table(f"{stage}/{name}", holds, columns, maker, again)


def _on_demand(name: str, holds: str, *columns: Column) -> tuple[tuple[str, str], Table]:
    command = "interp equations"
    again = f"Run `{command} {{run}}` again, which makes its folder anew."
    return ("equations", name), Table(f"equations/{name}", holds, columns, f"`{command}`", again)


def _of_study(name: str, holds: str, *columns: Column) -> Table:
    return Table(
        name,
        holds,
        columns,
        "`interp train-patched` (`interp.studies.write_study`)",
        "Delete {path} and run `interp train-patched --out {folder}` with the same arguments again: runs "
        "that are finished are not trained again.",
    )


RESULT_TABLES: dict[tuple[str, str], Table] = dict([
    _of_stage(
        "phases", "sensitivity", "How the ends of the phases move with the tolerance δ.",
        _number("delta", "δ, by which the loss has to leave the baseline", "share of the baseline"),
        _integer("statistics_end", "the step at which the loss reaches the baseline", _STEPS, "not reached"),
        _integer("plateau_end", "the step from which it stays below", _STEPS, "not reached"),
    ),
    _of_stage(
        "knowledge", "final", "What the last checkpoint knows, of everybody.",
        _integer("step", "the last checkpoint", _STEPS, needed=False),
        _text("split", "`train` (known people in training wordings), `evaluation` (in others) or "
              "`held_out` (people never seen)"),
        _text("metric", "`attribute_loss` and `entropy` (nats), `attribute_accuracy` and `top_probability`"),
        _ATTRIBUTE,
        _number("value", "its value", "nats; share; probability"),
    ),
    _of_stage(
        "attention", "scores", "How much each head attends to names, template text, earlier facts.",
        _STEP, _LAYER, _HEAD,
        _text("metric", "the score, e.g. `name_to_name` (`interp.attention.names` defines each)"),
        _number("value", "share of attention; sharpness from 0 to 1", _SHARE, _NO_QUERY),
        _number("chance", "the share that uniform attention gives", _SHARE, _NO_QUERY),
    ),
    _of_stage(
        "attention", "roles", "The role of each head, by the score that exceeds its chance most.",
        _STEP, _LAYER, _HEAD,
        _text("role", 'the role, or "none"'),
        _text("metric", "the score that decides it", missing=_UNKNOWN),
        _number("value", "that score", _SHARE, _UNKNOWN),
        _number("chance", "what uniform attention gives", _SHARE, _UNKNOWN),
        _number("excess", "(value - chance) / (1 - chance)", _SHARE, _UNKNOWN, needed=False),
    ),
    _of_stage(
        "knockout", "costs", "What cutting an edge of attention costs.",
        _STEP,
        _text("edge", "what is cut: `attribute_to_name`, ..., or `control`"),
        _integer("layer", "the layer that is cut", missing="all layers"),
        _integer("head", "the head that is cut", missing="all heads"),
        _number("loss", "attribute loss with the edge cut", _NATS, needed=False),
        _number("intact", "attribute loss without", _NATS),
        _number("cost", "loss - intact", _NATS),
    ),
    _of_stage(
        "memory", "keys", "Whether the neurons of MLPs tell people apart.",
        _STEP, _LAYER,
        _text("position", "where neurons are read"),
        _text("split", "`evaluation`, `held_out` or `known against held-out`"),
        _text("metric", "`selectivity` and kin (share of variance), `sparsity` (share of active neurons), "
              "`similarity_same` and kin (cosine)"),
        _number("value", "its value", "share; cosine", "there is no such pair of people"),
        _number("control", "what shuffled people, or other people, give", "share; cosine",
                "the metric has none"),
    ),
    _of_stage(
        "memory", "values", "Whether what MLPs write promotes the values of the person.",
        _STEP, _LAYER,
        _text("position", "where activations are read"),
        _text("path", "`direct` (to the logits) or `attention` (through later heads)"),
        _text("metric", "`value_share` (of top tokens), `agreement` of neurons and `layer_agreement` (rank "
              "from 0 to 1)"),
        _ATTRIBUTE,
        _number("value", "its value", "share; rank", _ONE_RANK),
        _number("control", "what random neurons or shuffled facts give", "share; rank", _ONE_RANK),
    ),
    _of_stage(
        "memory", "probes", "How well linear probes read the values off the residual stream.",
        _STEP,
        _text("site", "where in the block the stream is read"),
        _LAYER,
        _text("position", "where in the sentence it is read"),
        _ATTRIBUTE,
        _number("accuracy", "of the same people in other wordings", _SHARE, _ONE_CLASS),
        _number("control", "of shuffled facts", _SHARE, _ONE_CLASS),
        _number("selectivity", "accuracy - control", _SHARE, _ONE_CLASS),
        _number("accuracy_other_people", "of people whom the probe was not fitted on", _SHARE, _FEW_PEOPLE),
        _number("control_other_people", "of shuffled facts of such people", _SHARE, _FEW_PEOPLE),
        _number("selectivity_other_people", "accuracy_other_people - control_other_people", _SHARE,
                _FEW_PEOPLE),
    ),
    _of_stage(
        "interventions", "swaps",
        "Whether predictions follow when the activations of two people are swapped.",
        _STEP,
        _text("sentences", "`first` (the fact is told in the first sentence) or `any`"),
        _text("site", "what is swapped"),
        _LAYER,
        _text("position", "where it is swapped"),
        _integer("n", "pairs of people"),
        _number("follows", "predictions that become the other person's value", _SHARE, _NO_POSITION),
        _number("kept", "predictions that stay the own value", _SHARE, _NO_POSITION),
        _number("unpatched", "predictions that are the own value without a swap", _SHARE, _NO_POSITION,
                needed=False),
        _number("control", "predictions that follow a swap at as many tokens of text", _SHARE,
                _NO_POSITION),
        _number("effect", "change of the logit difference between the two values", _LOGITS, _NO_POSITION,
                needed=False),
        _number("share", "effect as a share of that of all names before layer 0", _SHARE, _NO_EFFECT,
                needed=False),
        _number("control_share", "the same of the control", _SHARE, _NO_EFFECT, needed=False),
    ),
    _of_stage(
        "interventions", "edges",
        "What cutting attention among names, and from the value to names, costs in one layer.",
        _STEP, _LAYER,
        _text("query", "the tokens that are cut off"),
        _text("key", "the tokens that they are cut off from"),
        _number("cost", "fall of the log-probability of the first value token", _NATS, _NO_POSITIONS),
        _number("kept", "predictions that stay right", _SHARE, _NO_POSITIONS, needed=False),
        _number("control", "the cost of cutting off as many tokens of text", _NATS, _NO_POSITIONS),
        _number("share", "cost as a share of what names do for the answer", _SHARE, _NO_EFFECT,
                needed=False),
        _number("control_share", "the same of the control", _SHARE, _NO_EFFECT, needed=False),
    ),
    _of_stage(
        "interventions", "ablations", "What replacing the output of MLPs by its mean costs.",
        _STEP,
        _integer("layer", "the layer whose MLP is ablated", missing="all layers"),
        _text("position", "the tokens at which it is, or `control`"),
        _number("loss", "attribute loss with the ablation", _NATS, needed=False),
        _number("intact", "attribute loss without", _NATS, needed=False),
        _number("cost", "loss - intact", _NATS),
    ),
    _of_stage(
        "interventions", "attribution",
        "A grid of patches between people at the last checkpoint, exact and to first order.",
        _text("site", "what is patched"),
        _LAYER,
        _integer("head", "the patched head", missing=_ALL_OR_NONE),
        _text("neurons", "the patched neurons", missing=_ALL_OR_NONE),
        _text("position", "where it is patched"),
        _number("exact", "change of the logit difference by the patch", _LOGITS, _NO_POSITION),
        _number("approximate", "the same by a gradient", _LOGITS, _NO_POSITION),
        _number("error", "approximate - exact", _LOGITS, _NO_POSITION, needed=False),
        _integer("n", "pairs of people", needed=False),
    ),
    _of_stage(
        "emergence", "steps", "When each mechanism emerges: the step of half its final strength.",
        _MECHANISM, _SEED,
        _number("step", "the step from which its strength stays at half of the final one, interpolated",
                _STEPS, _ABSENT),
        _number("start", "its strength at the first measured step", _STRENGTH, _NOT_MEASURED, needed=False),
        _number("final", "its strength at the last", _STRENGTH, _NOT_MEASURED),
        _text("phase", "the phase that the step lies in", missing=_ABSENT),
    ),
    _of_stage(
        "emergence", "strengths", "The strength of each mechanism over training.",
        _MECHANISM, _STEP,
        _number("value", "what is measured", _STRENGTH, _NOT_MEASURED, needed=False),
        _number("control", "what its control gives", _STRENGTH, _NOT_MEASURED, needed=False),
        _number("strength", "value - control", _STRENGTH, _NOT_MEASURED),
    ),
    _of_stage(
        "patching", "curves",
        "Curves of the run and of its twins, trained with the attention of its checkpoints.", *_CURVES,
    ),
])  # fmt: skip
"""The tables of the stages, by stage and name."""

ON_DEMAND_TABLES: dict[tuple[str, str], Table] = dict([
    _on_demand(
        "residuals", "The loss of every single fact, in wordings never seen with the person.",
        _STEP,
        _text("form", "the form in which the fact is asked for", needed=False),
        _integer("individual", "whose fact it is"),
        _text("attribute", "which of them"),
        _number("loss", "cross-entropy of the value", _NATS),
        _boolean("right", "whether all tokens of the value are predicted", needed=False),
        _number("probability", "of the value's first token", "probability", needed=False),
        _number("baseline", "entropy of the attribute's values among people trained on", _NATS,
                _NO_BASELINE),
    ),
    _on_demand(
        "capacity", "The bits of facts that are known.",
        _STEP, _ATTRIBUTE,
        _integer("n_facts", "facts of everybody trained on"),
        _number("loss", "their mean loss", _NATS),
        _number("baseline", "their mean baseline", _NATS),
        _number("bits", "n_facts (baseline - loss) / ln 2, not below 0", "bits"),
        _number("bits_per_parameter", "bits by all parameters", "bits"),
    ),
    _on_demand(
        "interference", "Cosines of the loss gradients of two groups of facts.",
        _STEP,
        _text("by", "what facts are grouped by"),
        _text("component", "which weights: `all`, `attention`, `mlp`, `embedding`, ..."),
        _integer("layer", "of which layer", missing="all layers"),
        _text("group", "one group"),
        _text("other", "another, or the same"),
        _text("metric", "`cosine`, or `specific` (of gradients less the mean of all groups')"),
        _number("value", "between the groups, each in other wordings", "cosine", _NO_GRADIENT),
        _number("ceiling", "what both have with themselves, the root of the product", "cosine",
                "a group does not agree with itself"),
        _number("shuffled", "of a group with itself, facts dealt to groups at random", "cosine",
                _NO_GRADIENT),
        _number("error", "standard error of a random projection; 0 if exact", "cosine", _NO_GRADIENT,
                needed=False),
        _integer("n_facts", "facts of the group", needed=False),
        _integer("n_other", "facts of the other", needed=False),
    ),
])  # fmt: skip
"""The tables that a command makes and the main job does not, by stage and name."""
ALL_TABLES = RESULT_TABLES | ON_DEMAND_TABLES
"""The tables of a run's `results/`."""

PATCHING_TABLE = _of_study(
    "table.csv of a patching study", "The curves of unpatched and patched runs.", *_CURVES
)
PATCHING_COMPARISON = _of_study(
    "comparison.csv of a patching study",
    "Every patched run against the unpatched one of its seed, at every step that both have.",
    _SEED,
    _integer("reference_step", _REFERENCE, _STEPS),
    *_PATCHED,
    _number("value", "attribute loss of the patched run", _NATS),
    _number("unpatched", "attribute loss of the unpatched run", _NATS),
    _number("gain", "unpatched - value: above 0 where the patched model is better", _NATS),
)

_HEADING = """# Result tables

CSV files with one header line, written by the commands named below. This page is made from declarations in
`interp/run/tables.py`. An empty field is a missing entry; what it means stands in the last column.
`interp.Run.result(stage, name)` reads `results/<stage>/<name>.csv` of a run with its types: int64, float64,
text, and pandas' Int64 for whole numbers that may be missing.
"""


def result_table(stage: str, name: str) -> Table:
    """The declaration of a stage's table.

    Raises:
        ArgumentError: no stage makes such a table.
    """
    if (stage, name) not in ALL_TABLES:
        known, unknown = ["/".join(key) for key in ALL_TABLES], f"{stage}/{name}"
        raise ArgumentError(
            f"No stage makes a table {unknown}.{suggest(unknown, known)} Tables: {', '.join(known)}."
        )
    return ALL_TABLES[stage, name]


def documentation() -> str:
    """The text of `docs/tables.md`."""
    tables = (*ALL_TABLES.values(), PATCHING_TABLE, PATCHING_COMPARISON)
    return f"{_HEADING}\n{markdown(tables)}"
