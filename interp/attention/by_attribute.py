"""Attention scores where one attribute is asked for: what a mean over all attributes does not show.

A head that recalls one attribute of six looks at names where that one is asked for and elsewhere at nothing
of interest; averaged over attributes, names get a sixth of its attention.
"""

from collections.abc import Sequence

import pandas as pd
from transformer_lens.model_protocol import TransformerLensModel

from interp.attention.names import ATTRIBUTE_METRICS, attention_scores
from interp.biographies import Batch
from interp.errors import ArgumentError
from interp.torch_state import default_state


@default_state()
def scores_by_attribute(
    model: TransformerLensModel, batch: Batch, attributes: Sequence[str]
) -> pd.DataFrame:
    """The attention scores of every head where each attribute is asked for, by itself.

    Args:
        model: Any TransformerLens model with causal attention.
        batch: Biographies; read is the position before each value, of those who have one.
        attributes: The names of the attributes, in the batch's order (`corpus.attributes`).

    Returns:
        Columns `attribute`, `layer`, `head`, `metric` (`ATTRIBUTE_METRICS`: the others are not read where an
        attribute is asked for), `value` and `chance`, as in `attention_scores`. Of an attribute that nobody
        has there is no row. `head_roles` gives each head a role at each attribute.

    Raises:
        ArgumentError: as many names as attributes are not given, or as `attention_scores`.
    """
    n = batch.value_start.shape[1]
    if len(attributes) != n:
        raise ArgumentError(
            f"{len(attributes)} attributes are named, but the batch tells {n}; give corpus.attributes."
        )
    parts = []
    for index, attribute in enumerate(attributes):
        told = batch.has_value[:, index].nonzero()[:, 0]
        if not len(told):
            continue
        texts = batch.take(told)
        table = attention_scores(model, texts, read=texts.value_start[:, index] - 1, sink=False)
        own = table[table["metric"].isin(ATTRIBUTE_METRICS)]
        parts.append(own.assign(attribute=attribute)[["attribute", *own.columns]])
    if not parts:
        raise ArgumentError("The batch tells no value; give biographies of people who have one.")
    return pd.concat(parts, ignore_index=True)
