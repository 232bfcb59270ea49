"""The section of a compiled run that says what was built: which head and which neurons do what."""

import pandas as pd

from interp.report.elements import LeftOut, Section, Table
from interp.report.run_tables import of_run
from interp.report.summary import final, measured_splits
from interp.run import Run
from interp.run.layout import KEY
from interp.tables import read_undeclared

_VARIANTS = {
    "local": "one neuron of MLP 0 a person",
    "distributed": "random features of names in MLP 0, and least squares from them to the values",
    "geometric": "the embeddings of people, who are one token each",
}
_TOLD = ("attends", "attribute", "reads", "writes")
"""Columns of the key's table of heads that are shown."""


@of_run("What was built", "built")
def built_section(run: Run) -> Section:
    """The key of a compiled model, and what the model says."""
    heads, neurons = (_table(run, name) for name in ("heads", "neurons"))
    # Rows of the same role are told once, with how many there are.
    counted = neurons.groupby(["layer", "role"], sort=False).size().rename("n").reset_index()
    return Section(
        sentence=built_sentence(run),
        text=[
            "No gradient step was taken: weights were computed from the people and the wordings, so that "
            "what each head and neuron does is known. The tables are its key; measures can be marked "
            "against it."
        ],
        tables=[
            Table(
                "Heads: what each attends to, which spaces of the residual stream it reads and writes.",
                ("head", "role", "attends to", "attribute", "reads", "writes"),
                [
                    (f"{h.layer}.{h.head}", str(h.role), *(_said(h, name) for name in _TOLD))
                    for h in heads.itertuples()
                ],
            ),
            Table(
                "Neurons: how many of each MLP have which role.",
                ("MLP", "role", "neurons"),
                [(f"{one.layer}", str(one.role), f"{one.n:,}") for one in counted.itertuples()],
            ),
        ],
        downloads={f"key-{name}": table for name, table in (("heads", heads), ("neurons", neurons))},
    )  # fmt: skip


@of_run("Learning, phases, and measures over training", "learning")
def not_trained(run: Run) -> LeftOut:
    """What a compiled run has not."""
    return LeftOut("the weights were computed and not trained")


def built_sentence(run: Run) -> str:
    """Where the facts are, and how well they are recalled."""
    where = _VARIANTS[str(run.config.compiled.variant)]
    known = f"{final(run, 'attribute_accuracy'):.1%} of the values of known people are recalled in "
    others = ""
    if "held_out" in measured_splits(run):
        others = (
            f", and {final(run, 'attribute_accuracy', 'held_out'):.1%} of those of people held out"
        )
    return f"The facts are in {where}: {known}wordings of evaluation{others}."


def _table(run: Run, name: str) -> pd.DataFrame:
    remedy = f"Delete {run.given} and compile it again (`interp compile`)."
    return read_undeclared(run.path / KEY / f"{name}.csv", remedy)


def _said(row: object, column: str) -> str:
    value = getattr(row, column)
    return "" if pd.isna(value) else str(value)
