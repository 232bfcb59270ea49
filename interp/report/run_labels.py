"""What tells runs apart: the settings in which they differ, and a short label for each made of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.config import Config, flatten

_LONGEST = 40
"""Characters of a label; what is longer is cut."""
_ORDER = ("patching", "model", "population", "sampling", "tokenizer", "optimizer", "training")
"""The groups of settings, by how much a reader wants them in a label; then all others."""
_NOT_SET = "not set"
_PATCHING = "patching"


def differing_settings(configs: Sequence[Config]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, by dotted name: the value in each run, as text.

    Settings that do not change a run (logging, the preset's name) are left out; a reference counts by
    its own settings and not by the folder it lies in (see `Config.identity`).
    """
    every = [config.identity() for config in configs]
    names = sorted({name for values in every for name in values}, key=_rank)
    return {
        name: [_text(values.get(name)) for values in every]
        for name in names
        if len({_text(values.get(name)) for values in every}) > 1
    }


def seed_groups(configs: Sequence[Config]) -> list[list[int]]:
    """The runs that are seeds of one configuration, in groups of two or more, by their places."""
    groups: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        values = config.identity()
        del values["seed"]
        groups.setdefault(repr(sorted(values.items())), []).append(place)
    return [
        group
        for group in groups.values()
        if len({configs[place].seed for place in group}) == len(group) > 1
    ]


def run_labels(configs: Sequence[Config], paths: Sequence[Path | str]) -> list[str]:
    """A short label for each run that no other run has.

    A setting goes into the labels if it tells runs apart that are still alike, in the order of `_ORDER`,
    then the seed; the end of the folder's name where no setting does.

    Args:
        configs: The settings of the runs.
        paths: Their folders, all different.

    Example:
        >>> runs = [Config(), Config(seed=1)]
        >>> run_labels(runs, ["a", "b"])
        ['seed 0', 'seed 1']
    """
    differing = differing_settings(configs)
    parts: list[list[str]] = [[] for _ in configs]
    n_apart = 1
    for words in _candidates(configs, differing):
        longer = [[*old, new] for old, new in zip(parts, words, strict=True)]
        n_now = len({tuple(label) for label in longer})
        if n_now > n_apart:
            parts, n_apart = longer, n_now
    labels = [_cut(", ".join(label)) for label in parts]
    return _made_unique(labels, [Path(path).resolve() for path in paths])


def _candidates(
    configs: Sequence[Config], differing: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """What could go into the labels, in order: for each setting, the words for each run."""
    found = []
    if any(config.patching.on for config in configs):
        found.append([_patching_words(config) for config in configs])
    for name, values in differing.items():
        if name != "seed":
            found.append([f"{_short_name(name)} {value}" for value in values])
    if "seed" in differing:
        found.append([f"seed {config.seed}" for config in configs])
    return found


def _patching_words(config: Config) -> str:
    patching = config.patching
    if not patching.on:
        return "unpatched"
    words = "own attention" if patching.own else f"attention of step {patching.reference_step}"
    for what in ("layers", "heads"):
        chosen = getattr(patching, what)
        if chosen is not None:
            words += f", {what} {' '.join(map(str, chosen))}"
    return words + (f", from step {patching.start}" if patching.start else "")


def _rank(name: str) -> tuple[int, str]:
    group = name.split(".", maxsplit=1)[0]
    return (_ORDER.index(group) if group in _ORDER else len(_ORDER), name)


def _short_name(name: str) -> str:
    """A setting without its group, if no other group has one of that name."""
    leaf = name.rsplit(".", maxsplit=1)[-1]
    every = flatten(Config().model_dump(mode="json"))
    alike = [other for other in every if other.rsplit(".", maxsplit=1)[-1] == leaf]
    return leaf if len(alike) == 1 else name.replace(".", " ")


def _text(value: Any) -> str:
    if value is None:
        return _NOT_SET
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _made_unique(labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Adds as much of the folder's name as it takes, from its end, where labels are alike."""
    depth = 1
    found = list(labels)
    while True:
        counts = Counter(found)
        alike = [i for i, label in enumerate(found) if counts[label] > 1 or not label]
        if not alike:
            return found
        for i in alike:
            folder = "/".join(paths[i].parts[-depth:])
            found[i] = f"{labels[i]} ({folder})" if labels[i] else folder
        depth += 1
        if depth > max(len(path.parts) for path in paths) + 1:
            # A label may by chance be what another became; numbers end the matter.
            return [f"{number}. {label}" for number, label in enumerate(found, 1)]
