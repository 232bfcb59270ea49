"""A transformer that recalls the facts of a population, with weights computed from it: no training.

Layer 0 copies the tokens before each position to it, one head for each distance. MLP 0 finds in them the
end of a name, the person (the memory), and the words that tell which attribute's value follows. Layer 1 has
a head for each attribute: where it is asked for, the head looks at the last token of the latest name and
takes the value from there; elsewhere it looks at `<bos>`, which says nothing. MLP 1 spells the later tokens
of a value.

Sources: Tracr (Lindner et al. 2023, arXiv:2301.05062) and InterpBench (Gupta et al. 2024, arXiv:2407.14494)
for models with known circuits; Nichani, Lee & Bietti 2024 (arXiv:2412.06538) for facts as associative memory
in MLPs, Noroozizadeh et al. 2025 (arXiv:2510.26745) for geometric memory in embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus, Population, tokenizer_of
from interp.compiled.attention import heads
from interp.compiled.facts import Knowledge
from interp.compiled.key import Key
from interp.compiled.memory import first_mlp, second_mlp
from interp.compiled.plan import Plan
from interp.compiled.saved import save_compiled
from interp.compiled.weights import state_dict
from interp.config import CompiledConfig, Config, Control, Variant
from interp.errors import ArgumentError
from interp.knowledge import Split, measure
from interp.model import hooked_transformer
from interp.run import Run
from interp.torch_state import default_state

_OTHERS = ("patching", "finetuning", "merging", "adapter")
"""Settings of weights that come from elsewhere."""


@dataclass(frozen=True)
class CompiledRecall:
    """A compiled model with what is known of it.

    Attributes:
        config: Its settings: those given, with the model that was built.
        corpus: The people and texts that it is about.
        model: The hooked model, in eval mode.
        key: What each head, neuron and direction is for.
    """

    config: Config
    corpus: Corpus
    model: TransformerBridge
    key: Key

    def measure(
        self, split: Split = "evaluation", n_individuals: int | None = None
    ) -> pd.DataFrame:
        """What the model knows of a split, as `Run.measure` returns it."""
        return measure(self.model, self.corpus, split, n_individuals)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Run:
        """Writes the model as a run of one checkpoint, at step 0, with its key; `interp.Run` opens it.

        Args:
            folder: A new folder.
            overwrite: Delete the run in it first.

        Raises:
            RunError: the folder holds a run already, or something else.
        """
        return save_compiled(self.config, self.corpus, self.model, self.key, folder, overwrite)


@default_state()
def compile_recall(
    config: Config,
    variant: Variant = "local",
    *,
    n_neurons: int | None = None,
    controls: Sequence[Control] = (),
    d_code: int | None = None,
) -> CompiledRecall:
    """A two-layer transformer that knows the people of some settings, computed and not trained.

    Args:
        config: Whose people, wordings and tokens; of `config.model` only `n_ctx` counts, and the seed from
            which directions are drawn.
        variant: Where the facts are. "local": one neuron a person in MLP 0. "distributed": random ReLU
            features of the name in MLP 0, and least squares from them to the values. "geometric": the
            embeddings of people of one token each (`one_token_people` makes such); MLP 0 only tells which
            attribute is asked for.
        n_neurons: Random features ("distributed" only); twice as many as known people by
            default, and at least 64.
        controls: What is built in and read by nothing: "head", a head of layer 1 that attends to names and
            carries a value; "direction", a value at the last name token that a probe can read; "neurons",
            one more for each person in MLP 0, which fires for them and writes nothing.
        d_code: Dimensions for directions where there are more labels than that; 64 by default.

    Returns:
        The model with its key; `save` writes both as a run.

    Raises:
        ArgumentError: the settings are about other weights, names or wordings cannot be told apart, the
            tokenizer cuts words, or the variant does not fit the names.
        ConfigError: n_ctx is shorter than the longest biography.

    Example:
        >>> import interp
        >>> compiled = interp.compile_recall(interp.preset("smoke"))
        >>> known = compiled.measure().query("metric == 'attribute_accuracy' and attribute == 'all'")
        >>> float(known["value"].iloc[0])
        1.0
    """
    settings = CompiledConfig(
        variant=variant,
        n_neurons=n_neurons,
        d_code=d_code,
        controls=tuple(sorted(controls)) or None,
    )
    _require_own_weights(config)
    population = Population.of(config)
    corpus = Corpus.of(config, population, tokenizer_of(config, population.lexicon))
    corpus.require_context(config.model.n_ctx)
    facts = Knowledge.of(corpus)
    if variant == "geometric" and facts.name_lengths != (1,):
        raise ArgumentError(
            "variant='geometric' has its facts in the embeddings of people, who need one token each; names "
            f"of this population have {max(facts.name_lengths)} tokens. interp.one_token_people makes such "
            "a population of it."
        )
    plan = Plan.of(facts, settings, config.model.n_ctx, config.seed_of("model"))
    d_model = plan.n_heads * plan.d_head
    every_head, mlps = heads(plan), (first_mlp(plan, d_model), second_mlp(plan, d_model))
    d_mlp = max(1, *map(len, mlps))
    config = config.with_settings(
        model={
            "n_layers": 2, "d_model": d_model, "n_heads": plan.n_heads, "d_mlp": d_mlp,
            "normalization": None, "positions": "standard", "act_fn": "relu", "recurrence": None,
        },
        compiled=settings,
    )  # fmt: skip
    corpus = Corpus.of(config, population, corpus.tokenizer)
    model = hooked_transformer(config, corpus.tokenizer)
    model.load_state_dict(state_dict(plan, every_head, mlps, d_mlp), strict=True)
    return CompiledRecall(config, corpus, model.eval(), Key.of(plan, every_head, mlps, d_mlp))


def _require_own_weights(config: Config) -> None:
    on = [name for name in _OTHERS if getattr(config, name).on]
    if on or config.data.contradictions.on:
        name = on[0] if on else "data.contradictions"
        raise ArgumentError(
            f"config: {name} is on, but compiled weights follow from the people alone. Give settings without."
        )
    if config.tokenizer.kind != "word":
        raise ArgumentError(
            f"config: tokenizer.kind={config.tokenizer.kind!r} cuts words into several tokens; a compiled "
            "model reads words. Set tokenizer.kind to word."
        )
