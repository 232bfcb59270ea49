"""What all settings have in common: frozen, checked, read from YAML, changed by dotted name."""

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from interp.errors import ConfigError, suggest


class Settings(BaseModel):
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


AnyConfig = TypeVar("AnyConfig", bound="RunConfig")


class RunConfig(Settings):
    """Base of the settings of one run, whole: read from YAML, written as such, changed by dotted name."""

    def with_settings(self: AnyConfig, **settings: Any) -> AnyConfig:
        """A copy with settings replaced, each by its dotted name; a ConfigError as in `parse`.

        Example:
            >>> from interp import Config
            >>> Config().with_settings(seed=1, **{"model.n_layers": 4}).model.n_layers
            4
        """
        values = self.model_dump(mode="json")
        known = set(flatten(values))
        for name, value in settings.items():
            *groups, leaf = name.split(".")
            place: Any = values
            for group in groups:
                place = place.get(group) if isinstance(place, dict) else None
            if not isinstance(place, dict) or leaf not in place:
                raise ConfigError(
                    f"There is no setting {name!r}.{suggest(name, known | set(values))} "
                    f"Settings: {', '.join(sorted(known))}."
                )
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
            raise ConfigError(describe(cls, error)) from error

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
        """The inverse of `to_yaml`; a ConfigError for text that is no YAML, and as in `parse`."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"Not a YAML file: {error}") from error
        return cls.parse(values)


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
        f"{name}: {b.get(name, 'not set')} there, {a.get(name, 'not set')} asked for"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def describe(model: type[Settings], error: ValidationError) -> str:
    """A pydantic error about `model` in one line a setting."""
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = flatten(model().model_dump(mode="json"))
            lines.append(f"There is no setting {name!r}.{suggest(name, known)}")
        else:
            lines.append(f"{name}: {item['msg']} (got {item['input']!r}).")
    return "\n".join(lines)
