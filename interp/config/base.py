"""What all settings have in common: frozen, checked, read from YAML, changed by dotted name."""

import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from interp.config.expected import expected
from interp.errors import ConfigError, short
from interp.plain_yaml import read_yaml

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

_VALUE = reprlib.Repr()  # as it was given, however large it is
_VALUE.maxlevel = 2
_LONGEST = 400  # characters about wrong values
_WRONG_VALUE = re.compile(r"greater_.*|less_.*|finite_.*|literal_.*|int_.*|.*_(type|parsing)")
"""The errors of pydantic about which is said what is expected; the others say it themselves."""

_OTHER_PEOPLE = (
    "population.people and population.templates: what they say is not what it was there (the files are "
    "others, or have changed since)"
)
MAX_SEED = 2**63 - 1
"""What PyTorch takes as a seed."""


class _Constructed(ModelMetaclass):
    """Makes settings; what is wrong with a value is said as everywhere in this package."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        try:
            return super().__call__(*args, **settings)
        except ValidationError as error:
            group = self.__name__.removesuffix("Config").lower()
            owner = group if self.__name__.endswith("Config") else ""
            raise ConfigError(describe(error, owner, model=self)) from error


class Settings(BaseModel, metaclass=_Constructed):
    """Base of all settings: frozen, nothing unknown, docstrings as descriptions.

    Validators raise `ConfigError` themselves: it passes through pydantic with its message as it is.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, field: Any) -> Any:
        """True is no 1: YAML reads yes, no, on and off as truth values too."""
        annotation = cls.model_fields[str(field.field_name)].annotation
        entries = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(entry, bool) for entry in entries) and not _allows_bool(annotation):
            raise PydanticCustomError("bool_type", "a truth value is none of what can be here")
        return value


def _allows_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(map(_allows_bool, get_args(annotation)))


AnyConfig = TypeVar("AnyConfig", bound="RunConfig")


class RunConfig(Settings):
    """Base of the settings of one run, whole: read from YAML, written as such, changed by dotted name."""

    def with_settings(self: AnyConfig, **settings: Any) -> AnyConfig:
        """A copy with settings replaced, each by its dotted name; a ConfigError as in `parse`.

        A group's model replaces the group; a mapping changes what it names of the group, or replaces it
        where it names a `kind`, whose settings are its own.

        Example:
            >>> from interp import Config
            >>> Config().with_settings(seed=1, **{"model.n_layers": 4}).model.n_layers
            4
        """
        values = self.model_dump(mode="json")
        known = set(flatten(values))
        for name, value in changes(settings):
            *groups, leaf = name.split(".")
            place: Any = values
            for group in groups:
                place = place.get(group) if isinstance(place, dict) else None
            if not isinstance(place, dict) or leaf not in place:
                raise ConfigError(unknown_setting(name, known | set(values)))
            if isinstance(value, BaseModel):
                value = value.model_dump(mode="json")
            place[leaf] = value
        return self.parse(values)

    @classmethod
    def parse(cls: type[AnyConfig], values: Any) -> AnyConfig:
        """A config from plain values (as read from YAML), with a readable error.

        Raises:
            ConfigError: an unknown setting or a value that cannot work.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            known = flatten(cls().model_dump(mode="json"))
            raise ConfigError(
                describe(
                    error,
                    unknown=lambda loc: unknown_setting(".".join(map(str, loc)), known),
                    model=cls,
                )
            ) from error

    def identity(self) -> dict[str, Any]:
        """The settings that determine a run's bytes, by dotted name: all that are not off (None).

        Those that are off are left out, so that a setting that is added later changes no old run.
        """
        return flatten(self.model_dump(mode="json", exclude_none=True))

    def to_yaml(self) -> str:
        """The settings as YAML text, in their order."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls: type[AnyConfig], text: str) -> AnyConfig:
        """The inverse of `to_yaml`; a ConfigError as in `read_yaml` and `parse`."""
        return cls.parse(read_yaml(text))


def changes(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name: a mapping counts for what it names, unless it is a kind of its own."""
    for name, value in settings.items():
        if isinstance(value, dict) and "kind" not in value:
            yield from changes(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keyed by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        name = f"{prefix}{name}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def differences(ours: RunConfig, theirs: RunConfig) -> list[str]:
    """One line for each setting in which two configs would give different runs."""
    a, b = ours.identity(), theirs.identity()
    return [
        _OTHER_PEOPLE
        if name == "population.people_digest"
        else f"{name}: {b.get(name, 'not set')} there, {a.get(name, 'not set')} asked for"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def describe(
    error: ValidationError,
    owner: str = "",
    unknown: Callable[[tuple[int | str, ...]], str] | None = None,
    *,
    model: type | None = None,
) -> str:
    """A pydantic error in one line: of at most three settings, the value given and what is expected.

    Args:
        error: The error.
        owner: What has the settings, e.g. a study; put before the line.
        unknown: Says of the place of a setting that there is no such setting, and which there are.
        model: The settings, from which is known what is expected; pydantic's own words without.
    """
    said: list[str] = []
    found = error.errors(include_url=False)
    for item in found[:3]:
        place = short(".".join(str(part) for part in item["loc"]), 60)[1:-1]
        if item["type"] == "extra_forbidden":
            line = unknown(item["loc"]) if unknown else f"There is no setting {place!r}."
        elif item["type"] == "missing":
            line = f"{place} is missing; set it."
        else:
            value = _VALUE.repr(item["input"])
            value = value if len(value) <= 60 else f"{value[:59]}…"
            known = _WRONG_VALUE.fullmatch(item["type"])
            wanted = expected(model, item["loc"]) if model and known else None
            if wanted and item["type"] == "finite_number":
                wanted = wanted.replace("a number", "a finite number")
            wrong = item["msg"].removeprefix("Value error, ").removesuffix(".")
            line = f"{place or 'settings'}={value}: {f'expected {wanted}' if wanted else wrong}."
        if said and len(" ".join([*said, line])) > _LONGEST:
            break
        said.append(line)
    if len(found) > len(said):
        more = len(found) - len(said)
        said.append(f"{more} more {'is' if more == 1 else 'are'} wrong.")
    line = " ".join(said)
    return f"{owner}: {line}" if owner else line


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """That there is no such setting, and which one may be meant: its last part is looked for everywhere."""
    known = list(known)
    meant = meant_settings(name, known)
    said = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    groups = ", ".join(dict.fromkeys(one.split(".")[0] for one in sorted(known)))
    return f"There is no setting {short(name, 60)}.{said}" + (
        "" if meant else f" There are {groups}."
    )


def meant_settings(name: str, known: Iterable[str]) -> list[str]:
    """At most three known settings that an unknown name may mean: by its last part, or by its letters."""
    known = sorted(known, key=lambda one: (one.count("."), one))
    leaf = name.split(".")[-1].replace("-", "_")
    leaves: dict[str, list[str]] = {}
    for one in known:
        leaves.setdefault(one.split(".")[-1], []).append(one)
    initials = {
        "".join(word[0] for word in part.split("_")): part for part in leaves if "_" in part
    }
    near = get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)
    meant = leaves.get(leaf) or leaves.get(initials.get(leaf, "")) or leaves.get("".join(near), [])
    group = name.rpartition(".")[0]
    beside = [one for one in known if one.rpartition(".")[0] == group and group]
    like = get_close_matches(name, beside, n=1, cutoff=0.85)
    return [*like, *(one for one in meant if one not in like)][:3] or get_close_matches(
        name, known, n=1
    )
