"""The result tables of a run, one declaration each: who makes it, its columns, their units.

`stages` writes them to `results/<stage>/<name>.csv`, `Run.result` reads them, and `docs/tables.md` is
made from here (`documentation`).
"""

from interp.errors import ArgumentError, suggest
from interp.tables import Column, Table, markdown

_SHARE, _NATS, _LOGITS, _STEPS = "share", "nats", "logits", "steps"
_STEP = Column("step", "integer", "the checkpoint", _STEPS)
_LAYER = Column("layer", "integer", "the layer, from 0")
_HEAD = Column("head", "integer", "the head, from 0")
_SEED = Column("seed", "integer", "the seed of the run")
_ATTRIBUTE = Column("attribute", "text", 'an attribute, or "all"')
_NO_QUERY = "no query of the texts has such keys"
_NO_EFFECT = "what names do for the answer is less than two standard errors from 0"


def _of_stage(stage: str, name: str, holds: str, *columns: Column) -> tuple[tuple[str, str], Table]:
    return (stage, name), Table(
        f"{stage}/{name}",
        holds,
        columns,
        f"`interp reproduce`, stage {stage}",
        "Delete {folder} and run `interp reproduce --out {run}` with the same settings again.",
    )


def _of_study(name: str, holds: str, *columns: Column) -> Table:
    return Table(
        name,
        holds,
        columns,
        "`interp train-patched` (`interp.studies.write_study`)",
        "Delete {path} and run `interp train-patched --out {folder}` with the same arguments again: runs "
        "that are finished are not trained again.",
    )


_PATCHED = (
    Column("start", "integer", "the step from which patterns are patched", _STEPS),
    Column("layers", "text", 'the patched layers: "all", or their numbers'),
    Column("heads", "text", 'the patched heads of each of them: "all", or their numbers'),
)
_REFERENCE = "the checkpoint whose attention patterns are used"
_CURVES = (
    _SEED,
    Column("reference_step", "integer", _REFERENCE, _STEPS, missing="the run is unpatched"),
    *_PATCHED,
    Column("step", "integer", "the step of training", _STEPS),
    Column("metric", "text", "`attribute_loss` or `attribute_accuracy`, on evaluation biographies"),
    Column("value", "number", "its value", "nats; share"),
)

RESULT_TABLES: dict[tuple[str, str], Table] = dict(
    [
        _of_stage(
            "phases", "sensitivity",
            "How the ends of the phases move with the tolerance δ.",
            Column("delta", "number", "δ, by which the loss has to leave the baseline",
                   "share of the baseline"),
            Column("statistics_end", "integer", "the step at which the loss reaches the baseline",
                   _STEPS, missing="not reached"),
            Column("plateau_end", "integer", "the step from which it stays below", _STEPS,
                   missing="not reached"),
        ),
        _of_stage(
            "knowledge", "final",
            "What the last checkpoint knows, of everybody.",
            Column("step", "integer", "the last checkpoint", _STEPS, needed=False),
            Column("split", "text", "`train` (known people in training wordings), `evaluation` (in "
                   "others) or `held_out` (people never seen)"),
            Column("metric", "text", "`attribute_loss` and `entropy` (nats), `attribute_accuracy` and "
                   "`top_probability`"),
            _ATTRIBUTE,
            Column("value", "number", "its value", "nats; share; probability"),
        ),
        _of_stage(
            "attention", "scores",
            "How much each head attends to names, template text, earlier facts.",
            _STEP, _LAYER, _HEAD,
            Column("metric", "text", "the score, e.g. `name_to_name` (`interp.attention.names` defines "
                   "each)"),
            Column("value", "number", "share of attention; sharpness from 0 to 1", _SHARE,
                   missing=_NO_QUERY),
            Column("chance", "number", "the share that uniform attention gives", _SHARE,
                   missing=_NO_QUERY),
        ),
        _of_stage(
            "attention", "roles",
            "The role of each head, by the score that exceeds its chance most.",
            _STEP, _LAYER, _HEAD,
            Column("role", "text", 'the role, or "none"'),
            Column("metric", "text", "the score that decides it", missing="no score is known"),
            Column("value", "number", "that score", _SHARE, missing="no score is known"),
            Column("chance", "number", "what uniform attention gives", _SHARE,
                   missing="no score is known"),
            Column("excess", "number", "(value - chance) / (1 - chance)", _SHARE,
                   missing="no score is known", needed=False),
        ),
        _of_stage(
            "knockout", "costs",
            "What cutting an edge of attention costs.",
            _STEP,
            Column("edge", "text", "what is cut: `attribute_to_name`, ..., or `control`"),
            Column("layer", "integer", "the layer that is cut", missing="all layers"),
            Column("head", "integer", "the head that is cut", missing="all heads"),
            Column("loss", "number", "attribute loss with the edge cut", _NATS, needed=False),
            Column("intact", "number", "attribute loss without", _NATS),
            Column("cost", "number", "loss - intact", _NATS),
        ),
        _of_stage(
            "memory", "keys",
            "Whether the neurons of MLPs tell people apart.",
            _STEP, _LAYER,
            Column("position", "text", "where neurons are read"),
            Column("split", "text", "`evaluation`, `held_out` or `known against held-out`"),
            Column("metric", "text", "`selectivity` and kin (share of variance), `sparsity` (share of "
                   "active neurons), `similarity_same` and kin (cosine)"),
            Column("value", "number", "its value", "share; cosine",
                   missing="there is no such pair of people"),
            Column("control", "number", "what shuffled people, or other people, give",
                   "share; cosine", missing="the metric has none"),
        ),
        _of_stage(
            "memory", "values",
            "Whether what MLPs write promotes the values of the person.",
            _STEP, _LAYER,
            Column("position", "text", "where activations are read"),
            Column("path", "text", "`direct` (to the logits) or `attention` (through later heads)"),
            Column("metric", "text", "`value_share` (of top tokens), `agreement` of neurons and "
                   "`layer_agreement` (rank from 0 to 1)"),
            _ATTRIBUTE,
            Column("value", "number", "its value", "share; rank", missing="not defined"),
            Column("control", "number", "what random neurons or shuffled facts give",
                   "share; rank", missing="not defined"),
        ),
        _of_stage(
            "memory", "probes",
            "How well linear probes read the values off the residual stream.",
            _STEP,
            Column("site", "text", "where in the block the stream is read"),
            _LAYER,
            Column("position", "text", "where in the sentence it is read"),
            _ATTRIBUTE,
            Column("accuracy", "number", "of the same people in other wordings", _SHARE,
                   missing="not defined"),
            Column("control", "number", "of shuffled facts", _SHARE, missing="not defined"),
            Column("selectivity", "number", "accuracy - control", _SHARE, missing="not defined"),
            *(
                Column(f"{name}_other_people", "number", meaning, _SHARE,
                       missing="fewer than five people, or no two of them share a value")
                for name, meaning in (
                    ("accuracy", "of people whom the probe was not fitted on"),
                    ("control", "of shuffled facts of such people"),
                    ("selectivity", "accuracy_other_people - control_other_people"),
                )
            ),
        ),
        _of_stage(
            "interventions", "swaps",
            "Whether predictions follow when the activations of two people are swapped.",
            _STEP,
            Column("sentences", "text", "`first` (the fact is told in the first sentence) or `any`"),
            Column("site", "text", "what is swapped"),
            _LAYER,
            Column("position", "text", "where it is swapped"),
            Column("n", "integer", "pairs of people"),
            *(
                Column(name, "number", meaning, unit, missing,
                       needed=name in ("follows", "kept", "control"))
                for name, meaning, unit, missing in (
                    ("follows", "predictions that become the other person's value", _SHARE,
                     "no pair has such a position"),
                    ("kept", "predictions that stay the own value", _SHARE,
                     "no pair has such a position"),
                    ("unpatched", "predictions that are the own value without a swap", _SHARE,
                     "no pair has such a position"),
                    ("control", "predictions that follow a swap at as many tokens of text", _SHARE,
                     "no pair has such a position"),
                    ("effect", "change of the logit difference between the two values", _LOGITS,
                     "no pair has such a position"),
                    ("share", "effect as a share of that of all names before layer 0", _SHARE,
                     _NO_EFFECT),
                    ("control_share", "the same of the control", _SHARE, _NO_EFFECT),
                )
            ),
        ),
        _of_stage(
            "interventions", "edges",
            "What cutting attention among names, and from the value to names, costs in one layer.",
            _STEP, _LAYER,
            Column("query", "text", "the tokens that are cut off"),
            Column("key", "text", "the tokens that they are cut off from"),
            Column("cost", "number", "fall of the log-probability of the first value token", _NATS,
                   missing="no pair has such positions"),
            Column("kept", "number", "predictions that stay right", _SHARE,
                   missing="no pair has such positions", needed=False),
            Column("control", "number", "the cost of cutting off as many tokens of text", _NATS,
                   missing="no pair has such positions"),
            Column("share", "number", "cost as a share of what names do for the answer", _SHARE,
                   missing=_NO_EFFECT, needed=False),
            Column("control_share", "number", "the same of the control", _SHARE,
                   missing=_NO_EFFECT, needed=False),
        ),
        _of_stage(
            "interventions", "ablations",
            "What replacing the output of MLPs by its mean costs.",
            _STEP,
            Column("layer", "integer", "the layer whose MLP is ablated", missing="all layers"),
            Column("position", "text", "the tokens at which it is, or `control`"),
            Column("loss", "number", "attribute loss with the ablation", _NATS, needed=False),
            Column("intact", "number", "attribute loss without", _NATS, needed=False),
            Column("cost", "number", "loss - intact", _NATS),
        ),
        _of_stage(
            "interventions", "attribution",
            "A grid of patches between people at the last checkpoint, exact and to first order.",
            Column("site", "text", "what is patched"),
            _LAYER,
            Column("head", "integer", "the patched head", missing="all, or the site has none"),
            Column("neurons", "text", "the patched neurons", missing="all, or the site has none"),
            Column("position", "text", "where it is patched"),
            *(
                Column(name, "number", meaning, _LOGITS, "no pair has such a position",
                       needed=name != "error")
                for name, meaning in (
                    ("exact", "change of the logit difference by the patch"),
                    ("approximate", "the same by a gradient"),
                    ("error", "approximate - exact"),
                )
            ),
            Column("n", "integer", "pairs of people", needed=False),
        ),
        _of_stage(
            "emergence", "steps",
            "When each mechanism emerges: the step of half its final strength.",
            Column("mechanism", "text", "the mechanism (`interp.memory.MECHANISMS`)"),
            _SEED,
            Column("step", "number", "the step from which its strength stays at half of the final one, "
                   "interpolated", _STEPS, missing="it is absent in the end"),
            Column("start", "number", "its strength at the first measured step", "share; nats",
                   missing="it cannot be measured", needed=False),
            Column("final", "number", "its strength at the last", "share; nats",
                   missing="it cannot be measured"),
            Column("phase", "text", "the phase that the step lies in",
                   missing="it is absent in the end"),
        ),
        _of_stage(
            "emergence", "strengths",
            "The strength of each mechanism over training.",
            Column("mechanism", "text", "the mechanism (`interp.memory.MECHANISMS`)"),
            _STEP,
            *(
                Column(name, "number", meaning, "share; nats", "it cannot be measured",
                       needed=name == "strength")
                for name, meaning in (
                    ("value", "what is measured"),
                    ("control", "what its control gives"),
                    ("strength", "value - control"),
                )
            ),
        ),
        _of_stage(
            "patching", "curves",
            "Curves of the run and of its twins, trained with the attention of its checkpoints.",
            *_CURVES,
        ),
    ]
)  # fmt: skip
"""The tables of the stages, by stage and name."""

PATCHING_TABLE = _of_study(
    "table.csv of a patching study",
    "The curves of unpatched and patched runs.",
    *_CURVES,
)
PATCHING_COMPARISON = _of_study(
    "comparison.csv of a patching study",
    "Every patched run against the unpatched one of its seed, at every step that both have.",
    _SEED,
    Column("reference_step", "integer", _REFERENCE, _STEPS),
    *_PATCHED,
    Column("step", "integer", "the step of training", _STEPS),
    Column("value", "number", "attribute loss of the patched run", _NATS),
    Column("unpatched", "number", "attribute loss of the unpatched run", _NATS),
    Column("gain", "number", "unpatched - value: above 0 where the patched model is better", _NATS),
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
    if (stage, name) not in RESULT_TABLES:
        known = ["/".join(key) for key in RESULT_TABLES]
        raise ArgumentError(
            f"No stage makes a table {stage}/{name}.{suggest(f'{stage}/{name}', known)} Tables: "
            f"{', '.join(known)}."
        )
    return RESULT_TABLES[stage, name]


def documentation() -> str:
    """The text of `docs/tables.md`."""
    tables = (*RESULT_TABLES.values(), PATCHING_TABLE, PATCHING_COMPARISON)
    return f"{_HEADING}\n{markdown(tables)}"
