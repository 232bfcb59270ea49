"""What tests of asking in every form start from: settings, a model that knows nothing, a run."""

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp import preset
from interp.biographies import FORMS, Corpus
from interp.config import Config
from interp.model import hooked_transformer
from tests.training.test_stages import ADAPTER, staged

EVERY_FORM: Config = preset("smoke", **{"data.vocabulary": tuple(FORMS), "model.d_model": 32})
ADAPTED: Config = staged(
    {"start": 0, "forms": [{"form": "mnemonic"}]},
    {"start": 4, "forms": [{"form": "question", "people": (0, 0.5)}], "weights": "adapter",
     "learning_rate": 0.02},
    **ADAPTER, **{"training.n_steps": 8, "data.vocabulary": ("triple",)},
)  # fmt: skip
"""Phrases, then questions about half of the people, learned by an adapter."""


def knows_nothing(corpus: Corpus) -> TransformerBridge:
    """A model with random weights, large enough that predictions differ."""
    model = hooked_transformer(EVERY_FORM, corpus.tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.eval()
