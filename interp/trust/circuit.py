"""What the key of a compiled model says, in the terms that several marks need."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from interp.compiled import CompiledRecall

_Read = TypeVar("_Read")
_kept: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()
LAST_NAME = "last name"
VALUE = "predicts value"


def known_people(compiled: CompiledRecall) -> int:
    """How many people, the first ones, the model knows."""
    return compiled.config.population.n_individuals


def recalling_heads(compiled: CompiledRecall) -> dict[str, tuple[int, int]]:
    """By attribute the head that recalls it, (layer, head)."""
    heads = compiled.key.heads.query("role == 'recalls'")
    places = zip(heads["layer"], heads["head"], strict=True)
    return dict(zip(heads["attribute"], places, strict=True))


def name_copying_heads(compiled: CompiledRecall) -> set[tuple[int, int]]:
    """The heads that copy tokens of a name to its last one; none where names have one token."""
    heads = compiled.key.heads.query("role == 'copies'")
    carries = heads["writes"].str.contains(r"\bname \d+ back")
    return set(zip(heads.loc[carries, "layer"], heads.loc[carries, "head"], strict=True))


def fact_layers(compiled: CompiledRecall) -> set[int]:
    """The layers whose MLP holds the facts; none where embeddings hold them."""
    layers = map(str, compiled.key.facts["layer"])
    return {int(layer.split()[1]) for layer in layers if layer.startswith("MLP")}


def least_share(compiled: CompiledRecall) -> float:
    """Half of what one attribute of all is: a head that recalls one does at least that."""
    return 0.5 / len(compiled.corpus.attributes)


def read_once(compiled: CompiledRecall, what: Hashable, read: Callable[[], _Read]) -> _Read:
    """What several marks need of a model, read once for each table (`forget`)."""
    own = _kept.setdefault(compiled.model, {})
    if what not in own:
        own[what] = read()
    found: _Read = own[what]
    return found


def forget(compiled: CompiledRecall) -> None:
    """Drops what was read of a model, whose weights may have been edited since."""
    _kept.pop(compiled.model, None)
