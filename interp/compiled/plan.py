"""What is built where: the spaces of the residual stream, and how many heads and neurons there are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from interp.compiled.facts import Knowledge
from interp.compiled.spaces import Space, Stream
from interp.compiled.wordings import END, Check, Pattern, patterns
from interp.config import CompiledConfig

LONGER = "longer"
"""Of a name's length: that a token can stand right before such a name in a longer one."""


@dataclass(frozen=True)
class Plan:
    """How a compiled model is laid out.

    Attributes:
        facts: What it has to know.
        settings: Its variant and controls.
        patterns: How it tells that a value begins, and of which attribute.
        spaces: The spaces of its residual stream, by name.
        backs: How far back each head of layer 0 looks.
        n_ctx: Positions.
        generator: Where what is drawn at random is drawn from.
    """

    facts: Knowledge
    settings: CompiledConfig
    patterns: tuple[Pattern, ...]
    spaces: dict[str, Space]
    backs: tuple[int, ...]
    n_ctx: int
    generator: np.random.Generator

    @classmethod
    def of(cls, facts: Knowledge, settings: CompiledConfig, n_ctx: int, seed: int) -> "Plan":
        """Divides the residual stream up for a population.

        Raises:
            ArgumentError: the attribute of a wording cannot be told, or d_code is too small.
        """
        found = patterns(facts)
        stream = Stream(np.random.default_rng([0x636F6D70, seed]), settings.d_code or 64)
        backs = _text_spaces(stream, facts, found, n_ctx)
        _fact_spaces(stream, facts, settings)
        return cls(facts, settings, found, stream.spaces, backs, n_ctx, stream.generator)

    @property
    def attributes(self) -> range:
        """The numbers of the attributes."""
        return range(len(self.facts.attributes))

    def fact(self, attribute: int, step: int) -> Space:
        """Where the last name token says a token of a value."""
        return self.spaces[fact_name(self.facts, attribute, step)]

    def fact_spaces(self, attribute: int) -> list[Space]:
        """Where the last name token says the value of an attribute, token by token."""
        return [self.fact(attribute, step) for step in range(self.facts.longest(attribute))]

    def recalled(self, step: int) -> Space:
        """Where a token of the value asked for is said; the first where the unembedding reads."""
        return self.spaces["output" if step == 0 else f"recalled {step}"]

    def back(self, what: str, places: int) -> Space | None:
        """Where a position says what a token so many places back is, if it says it."""
        return self.spaces.get(what if places == 0 else f"{what} {places} back")

    @property
    def d_stream(self) -> int:
        """How many dimensions of the residual stream are in use."""
        return max(space.stop for space in self.spaces.values())

    def controls(self, name: str) -> bool:
        """Whether a control is built in."""
        return name in (self.settings.controls or ())

    @property
    def n_heads(self) -> int:
        """Heads of a layer: as many as the fuller of the two needs."""
        return max(len(self.backs), len(self.attributes) + self.controls("head"))

    @property
    def d_head(self) -> int:
        """Width of a head: what the head that carries most needs, so that all heads span the stream."""
        carried = [
            sum(
                space.width for what in ("word", "name", "part") if (space := self.back(what, back))
            )
            for back in self.backs
        ]
        recalled = [sum(space.width for space in self.fact_spaces(a)) for a in self.attributes]
        return max(32, *carried, *recalled, -(-self.d_stream // self.n_heads))


def fact_name(facts: Knowledge, attribute: int, step: int) -> str:
    """What the space is called that says a token of an attribute's value."""
    return f"fact {facts.attributes[attribute]} {step}"


def shifted(facts: Knowledge, pattern: Pattern) -> Iterator[tuple[int, list[Check], list[Check]]]:
    """A pattern where each token of a value is predicted: the step, checks, and what must not be.

    Within a value the same checks hold, one place further back with each token. The end of a sentence in
    between ends the value, however short it was.
    """
    values = [v for v in facts.pools[pattern.attribute] if v]
    for step in range(facts.longest(pattern.attribute)):
        holds = [Check(check.back + step, check.feature) for check in pattern.checks]
        ended = [
            Check(step - 1 - place, END)
            for place in range(step if facts.ends else 0)
            if not any(len(v) > place and v[place] in facts.ends for v in values)
        ]
        yield step, holds, ended


def _text_spaces(
    stream: Stream, facts: Knowledge, found: tuple[Pattern, ...], n_ctx: int
) -> tuple[int, ...]:
    """Spaces for what every position knows of its own token and of those before it."""
    needed: dict[int, set[int]] = {}
    for pattern in found:
        for _, holds, ended in shifted(facts, pattern):
            for check in (*holds, *ended):
                needed.setdefault(check.back, set()).add(check.feature)
    lengths = facts.name_lengths
    longer = [n for n in lengths if n < max(lengths)]
    stream.add("position", "where the token stands", range(n_ctx), own_dimensions=True)
    stream.add("beginning", "that the token is <bos>", ("<bos>",))
    words = sorted(set().union(*needed.values()))
    stream.add("word", "which word the token is", words, own_dimensions=True)
    names = stream.add("name", "which token of a name the token is", facts.name_tokens)
    parts: list[tuple[int | str, int]] = [*facts.name_places]
    parts.extend((LONGER, n) for n in longer)
    stream.add("part", "where in a name the token can stand", parts, own_dimensions=True)
    backs = sorted({*needed, *range(max(lengths)), *longer} - {0})
    for back in backs:
        if back in needed:
            some = sorted(needed[back])
            says = f"which word stands {back} back"
            stream.add(f"word {back} back", says, some, own_dimensions=True)
        if back < max(lengths):
            says = f"which token of a name stands {back} back"
            stream.add(f"name {back} back", says, names.labels, names.codes)
        here = [
            part
            for part in parts
            if part == (LONGER, back) or (part[0] != LONGER and part[1] == back)
        ]
        if here:
            says = f"where in a name the token {back} back can stand"
            stream.add(f"part {back} back", says, here, own_dimensions=True)
    stream.add("name end", "that the token is the last of a name", ("name end",))
    stream.add("asked", "of which attribute a value follows", facts.attributes, own_dimensions=True)
    if facts.n_steps > 1:
        steps = range(1, facts.n_steps)
        stream.add("step", "which token of the value follows", steps, own_dimensions=True)
    return tuple(backs)


def _fact_spaces(stream: Stream, facts: Knowledge, settings: CompiledConfig) -> None:
    """Spaces for what the last name token knows, and for what is recalled of it."""
    attributes = range(len(facts.attributes))

    def tokens(step: int) -> list[int]:
        return sorted(set().union(*(facts.tokens_at(a, step) for a in attributes)))

    everything = sorted(set().union(*(tokens(step) for step in range(facts.n_steps))))
    shared = [stream.add("output", "which token comes next, for the unembedding", everything)]
    for step in range(1, facts.n_steps):
        says = f"token {step} of the value asked for, counted from 0"
        shared.append(stream.add(f"recalled {step}", says, tokens(step)))
    for attribute in attributes:
        for step in range(facts.longest(attribute)):
            own = facts.tokens_at(attribute, step)
            codes = (
                None
                if len(own) <= stream.d_code
                else np.stack([shared[step].code(token) for token in own])
            )
            says = f"token {step} of the person's {facts.attributes[attribute]}, counted from 0"
            stream.add(fact_name(facts, attribute, step), says, own, codes)
    first = stream.spaces[fact_name(facts, 0, 0)]
    about = f"first token of the person's {facts.attributes[0]}; nothing reads it"
    if "direction" in (settings.controls or ()):
        stream.add("unread", about, first.labels, first.codes)
    if "head" in (settings.controls or ()):
        stream.add("carried", about, first.labels, first.codes)
