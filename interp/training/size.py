"""What a run needs at least in memory: refused before anything is built."""

from interp.config import LIST_SIZES, Config
from interp.errors import ConfigError
from interp.machine import memory_bytes

_GIB = 2**30
_FLOAT = 4
_TRAINED = 4 * _FLOAT  # a weight, its gradient and AdamW's two moments
_TOKENS = 48  # of a biography; few are shorter
_OF_TOKEN = 13  # bytes of a candidate's token: its id, and what it is
_OF_PERSON = 100  # bytes: names, facts and order


def least_bytes(config: Config) -> int:
    """What training needs at least, in bytes: weights and moments, a batch's activations, the people."""
    model, training, people = config.model, config.training, config.population
    names = ("first_names", "middle_names", "last_names", "cities", "companies")
    words = sum(min(getattr(people, name), LIST_SIZES[name]) for name in names)
    if people.people is not None:
        words = 0  # of a user's own people nothing is known here
    vocabulary = config.tokenizer.bpe_vocabulary if config.tokenizer.kind == "bpe" else words
    layer = 4 * model.d_model**2 + 2 * model.d_model * model.d_mlp
    weights = model.n_layers * layer + model.d_model * (2 * vocabulary + model.n_ctx)
    token = model.n_layers * (4 * model.d_model + model.d_mlp + model.n_heads * _TOKENS)
    activations = training.batch_size * _TOKENS * (token + vocabulary)
    candidates = training.batch_size * config.selection.candidates * _TOKENS * _OF_TOKEN
    everybody = people.n_individuals + people.n_held_out
    return _TRAINED * weights + _FLOAT * activations + candidates + _OF_PERSON * everybody


def require_memory(config: Config) -> None:
    """Checks that a run can fit into this machine's memory; a GPU says itself when it is full.

    Raises:
        ConfigError: it needs more than there is.
    """
    available, needed = memory_bytes(), least_bytes(config)
    on_cpu = config.training.device in ("auto", "cpu")
    if on_cpu and available is not None and needed > available:
        raise ConfigError(
            f"These settings need at least {needed / _GIB:,.0f} GiB of memory, and this machine has "
            f"{available / _GIB:,.0f} GiB. Choose a smaller model.d_model, model.d_mlp, model.n_layers, "
            "training.batch_size, selection.k or population.n_individuals."
        )
