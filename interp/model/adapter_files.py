"""Adapters on disk, in peft's format: `adapter_config.json` and `adapter_model.safetensors`.

A joint matrix of the transformers model (queries, keys and values of GPT-2) has one product in the file.
That of an adapter of ours has A of its parts below each other and B in blocks, its rank that of the parts
together; a note in the file says so. A file of peft's has one A that all parts share.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from interp.errors import ArgumentError, CheckpointError, printable, short
from interp.files import place_to_write, read_tensors, replaceable, write_json, write_tensors
from interp.model.adapter_sites import SITES, Joint, LoraSpec, Place, joint_of, path_of, places_of
from interp.reading import DamageError, MissingError, parse_json, read_json

if TYPE_CHECKING:
    from interp.model.adapters import Adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_OURS = re.compile(rb'.{8}\{"__metadata__":\{"interp":', re.DOTALL)
_CONFIG = re.compile(rb'\{\s*"\w+":.*"peft_type": "LORA"', re.DOTALL)
_REMEDY = "Save the adapter again, or choose another folder."
_UNLIKE = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "modules_to_save",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "target_parameters",
    "velora_config", "monteclora_config", "kasa_config",
)  # fmt: skip
"""Settings of peft that make an adapter something else than W + scaling B A."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Ways to begin that change the weights of the base, of which the files know nothing."""

Ranks = dict[str, tuple[int, float]]


class _Settings(BaseModel):
    """What is read of `adapter_config.json`."""

    model_config = ConfigDict(strict=True)

    peft_type: str
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    use_rslora: bool = False
    alpha_pattern: dict[str, float] = {}
    bias: str = "none"


class _Note(BaseModel):
    """What an adapter of ours notes beside its tensors."""

    rank: int
    alpha: float
    sites: list[str] | None
    layers: list[int] | None
    seed: int
    names: list[str]
    stacked: list[str]


@dataclass(frozen=True)
class _Group:
    """The linear maps that share a name in peft: one, or the parts of a joint matrix."""

    parts: list[Place]
    joint: Joint | None


def _groups(model: Any, places: list[Place]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for place in places:
        path = path_of(model, place)
        if path in groups:
            groups[path].parts.append(place)
        else:
            groups[path] = _Group([place], joint_of(model, place))
    return groups


def save_adapter(adapter: "Adapter", folder: Path | str) -> Path:
    """Writes an adapter; see `Adapter.save`."""
    folder = place_to_write(folder)
    config_path = replaceable(folder / CONFIG, _CONFIG, "the settings of an adapter")
    weights_path = replaceable(folder / WEIGHTS, _OURS, "an adapter")
    tensors: dict[str, Tensor] = {}
    stacked: list[str] = []
    ranks: Ranks = {}
    own = adapter.named_tensors()
    transposed = False
    for path, group in _groups(adapter.model, adapter.places).items():
        pairs = {
            p.site: (own[f"{p.name}.lora_A"].cpu(), own[f"{p.name}.lora_B"].cpu())
            for p in group.parts
        }
        if group.joint is None:
            ((a, b),) = pairs.values()
            transposed = transposed or isinstance(group.parts[0].held, Conv1D)
        else:
            a, b, blocks = _joined(pairs, group.joint)
            stacked += [path] if blocks else []
            transposed = transposed or isinstance(group.joint.linear, Conv1D)
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = a
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = b
        ranks[path] = (len(a), adapter.scaling(group.parts[0].name) * len(a))
    spec = adapter.spec
    note = _Note(
        rank=spec.rank,
        alpha=float(spec.alpha),
        sites=None if spec.sites is None else list(spec.sites),
        layers=None if spec.layers is None else list(spec.layers),
        seed=spec.seed,
        names=[place.name for place in adapter.places],
        stacked=stacked,
    )
    write_tensors(weights_path, tensors, {"adapter": note.model_dump_json()})
    write_json(config_path, _settings(adapter, ranks, transposed))
    return folder


def _joined(
    pairs: Mapping[str, tuple[Tensor, Tensor]], joint: Joint
) -> tuple[Tensor, Tensor, bool]:
    """A and B of a joint matrix, and whether each part has rows of A of its own."""
    n_out = sum(len(rows) for rows in joint.rows.values())
    every = torch.cat(list(joint.rows.values())).sort().values
    if not torch.equal(every, torch.arange(n_out)):
        raise ArgumentError(
            "The parts of a joint matrix of this model share outputs, so an adapter of it cannot be a file "
            "of peft."
        )
    first = next(iter(pairs.values()))[0]
    if set(pairs) == set(joint.rows) and all(torch.equal(a, first) for a, _ in pairs.values()):
        b = first.new_zeros(n_out, len(first))
        for site, (_, part) in pairs.items():
            b[joint.rows[site]] = part
        return first, b, False
    stack = torch.cat([a for a, _ in pairs.values()])
    b, at = first.new_zeros(n_out, len(stack)), 0
    for site, (a, part) in pairs.items():
        b[joint.rows[site][:, None], torch.arange(at, at + len(a))] = part
        at += len(a)
    return stack, b, True


def _settings(adapter: "Adapter", ranks: Ranks, transposed: bool) -> dict[str, Any]:
    import peft

    def plain(number: float) -> float | int:
        return int(number) if number == int(number) else number

    rank, alpha = max(set(ranks.values()), key=lambda one: list(ranks.values()).count(one))
    base = getattr(getattr(adapter.model.original_model, "config", None), "name_or_path", None)
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=plain(alpha),  # type: ignore[arg-type]
        target_modules=sorted(ranks),
        rank_pattern={path: r for path, (r, _) in sorted(ranks.items()) if r != rank},
        alpha_pattern={path: plain(x) for path, (_, x) in sorted(ranks.items()) if x != alpha},
        fan_in_fan_out=transposed,
        base_model_name_or_path=base if isinstance(base, str) and base else None,
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).to_dict()
    settings["target_modules"] = sorted(ranks)
    kept = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items()}
    return {name: getattr(value, "value", value) for name, value in sorted(kept.items())}


def read_adapter(model: Any, folder: Path | str) -> tuple[LoraSpec, Ranks, dict[str, Tensor]]:
    """An adapter's spec, rank and alpha by linear map, and tensors; see `load_adapter`."""
    folder = Path(folder).expanduser()
    settings = _read_settings(folder)
    tensors, metadata = read_tensors(folder / WEIGHTS, remedy=_REMEDY)
    note = _read_note(folder, metadata)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = _TENSOR.fullmatch(key)
        if found is None or tensor.ndim != 2:
            raise ArgumentError(
                f"{folder} holds {short(printable(key), 80)}, which is no part of a plain LoRA adapter of "
                "linear maps."
            )
        pairs.setdefault(found[1], {})[found[2]] = tensor.float()
    if not pairs:
        raise CheckpointError(f"{folder / WEIGHTS} holds no adapter. {_REMEDY}")
    groups = _groups(model, places_of(model))
    ranks: Ranks = {}
    own: dict[str, Tensor] = {}
    for path, pair in pairs.items():
        if path not in groups or len(pair) < 2:
            what = "no linear map" if path not in groups else "only one factor of a product"
            raise CheckpointError(
                f"{folder} is an adapter of another model: it is at {short(printable(path), 80)}, where this "
                f"model has {what} for it."
            )
        a, b, group = pair["A"], pair["B"], groups[path]
        scaling = _scaling(settings, path, len(a))
        parts = [p for p in group.parts if note is None or p.name in note.names]
        at = 0
        for place in parts:
            mine = b if group.joint is None else _rows(b, group.joint.rows[place.site])
            part_a = a
            if note is not None and path in note.stacked:
                rank = len(a) // len(parts)
                part_a, mine, at = a[at : at + rank], mine[:, at : at + rank], at + rank
            _require_shapes(folder, path, place, part_a, mine)
            own[f"{place.name}.lora_A"], own[f"{place.name}.lora_B"] = part_a, mine
            ranks[place.name] = (len(part_a), scaling * len(part_a))
    order = [place.name for place in places_of(model) if place.name in ranks]
    return _spec(settings, note, order), {name: ranks[name] for name in order}, own


def _rows(b: Tensor, rows: Tensor) -> Tensor:
    return b[rows] if len(b) > int(rows.max()) else b[:0]


def _require_shapes(folder: Path, path: str, place: Place, a: Tensor, b: Tensor) -> None:
    weight: Tensor = place.held.weight  # type: ignore[assignment]
    shape = weight.T.shape if isinstance(place.held, Conv1D) else weight.shape
    if (b.shape[0], a.shape[1]) != tuple(shape) or a.shape[0] != b.shape[1] or not len(a):
        raise CheckpointError(
            f"{folder} is an adapter of another model: its product at {short(path, 80)} is "
            f"{b.shape[0]} × {a.shape[1]}, of rank {a.shape[0]}, and {place.name} is "
            f"{shape[0]} × {shape[1]}."
        )


def _scaling(settings: _Settings, path: str, rank: int) -> float:
    """The scaling (alpha / rank) at a matrix, as peft has it: a pattern matches the end of a name."""
    alpha = next(
        (a for key, a in settings.alpha_pattern.items() if re.match(rf"(.*\.)?({key})$", path)),
        settings.lora_alpha,
    )
    return alpha / (rank**0.5 if settings.use_rslora else rank)


def _read_settings(folder: Path) -> _Settings:
    path = folder / CONFIG
    try:
        raw = read_json(path, _Settings)
        for key in _Settings.model_validate(raw).alpha_pattern:
            re.compile(key)
    except MissingError as error:
        raise CheckpointError(f"{folder} holds no adapter: there is no {CONFIG}.") from error
    except re.error as error:
        raise CheckpointError(f"{path} is damaged: a name in alpha_pattern ({error}).") from None
    except DamageError as damage:
        raise CheckpointError(f"{path} is damaged: {damage}. {_REMEDY}") from None
    settings = _Settings.model_validate(raw)
    begin = raw.get("init_lora_weights")
    if settings.peft_type != "LORA":
        unlike = f"peft_type={short(printable(settings.peft_type))}"
    elif settings.bias != "none":
        unlike = f"bias={short(printable(settings.bias))}"
    elif isinstance(begin, str) and begin.lower().startswith(_CHANGES_BASE):
        unlike = f"init_lora_weights={short(printable(begin))}"
    else:
        unlike = next((name for name in _UNLIKE if raw.get(name)), "")
    if unlike:
        raise ArgumentError(
            f"{folder} is an adapter with {unlike}. What fits is plain LoRA: W + scaling B A, and nothing "
            "else of the model trained."
        )
    return settings


def _read_note(folder: Path, metadata: Mapping[str, str]) -> _Note | None:
    if "adapter" not in metadata:
        return None
    try:
        return _Note.model_validate(parse_json(metadata["adapter"]))
    except ValueError:  # of pydantic, or a DamageError
        raise CheckpointError(
            f"{folder / WEIGHTS} is damaged: its note is not an adapter's. {_REMEDY}"
        ) from None


def _spec(settings: _Settings, note: _Note | None, names: list[str]) -> LoraSpec:
    if note is not None:
        return LoraSpec(note.rank, note.alpha, note.sites, note.layers, note.seed)
    parts = [name.split(".") for name in names]
    sites = [s for s, where in SITES.items() if any((p[2], p[3]) == where for p in parts)]
    layers = sorted({int(part[1]) for part in parts})
    return LoraSpec(settings.r, settings.lora_alpha, sites, layers)
