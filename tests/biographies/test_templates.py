import pytest

from interp.biographies import ATTRIBUTES, N_TEMPLATES, N_TRAIN_TEMPLATES, Template, templates
from interp.biographies.tokenizer import words
from interp.errors import ConfigError

ALL = [(attribute, t) for attribute, group in templates().items() for t in group]


def test_counts() -> None:
    assert tuple(templates()) == ATTRIBUTES
    assert {len(group) for group in templates().values()} == {N_TEMPLATES} == {25}
    assert N_TRAIN_TEMPLATES == 20


def test_all_wordings_differ() -> None:
    assert len({template.render("N", "V") for _, template in ALL}) == 150


@pytest.mark.parametrize(("attribute", "template"), ALL, ids=[t.source for _, t in ALL])
def test_name_and_type_come_before_the_value(attribute: str, template: Template) -> None:
    kinds = [kind for kind, _ in template.parts]
    assert kinds.count("name") == kinds.count("value") == 1
    value = kinds.index("value")
    assert kinds.index("name") < value
    types = [place for place, kind in enumerate(kinds) if kind == "type"]
    assert types
    assert max(types) < value
    assert template.source.count("{") == template.source.count("}") == 2
    assert template.source.endswith(".")
    assert template.render("N", "V")[0].isupper()


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_type_phrases_belong_to_one_attribute(attribute: str) -> None:
    def phrases(name: str) -> set[str]:
        return {p.lower() for t in templates()[name] for p in t.type_phrases}

    for other in set(ATTRIBUTES) - {attribute}:
        assert phrases(attribute) & phrases(other) == set()


def test_wording_before_the_value_differs_between_attributes() -> None:
    """So a perfect model knows which attribute comes, in every single sentence."""
    owner: dict[str, str] = {}
    for attribute, template in ALL:
        before = template.before_value.lower()
        assert owner.setdefault(before, attribute) == attribute, before


def test_parts_in_order() -> None:
    template = Template.parse("As we know, {name}'s <home town> is {value}, people say.")
    assert template.parts == (
        ("text", "As we know,"),
        ("name", ""),
        ("text", "'s"),
        ("type", "home town"),
        ("text", "is"),
        ("value", ""),
        ("text", ", people say."),
    )
    assert template.type_phrases == ("home town",)
    assert template.before_value == "As we know, {name}'s home town is"


def test_render() -> None:
    template = Template.parse("{name} was <born in> {value}.")
    assert template.render("Ada Lovelace", "London") == "Ada Lovelace was born in London."


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{value} is where {name} was <born>.", "value before the name"),
        ("{name}: {value} is the <birthplace>.", "value before the name"),
        ("<Born in> {value} was {name}.", "value before the name"),
        ("{name} was born in {value}.", "angle brackets"),
        ("{name} was <born in> {value}, says {name}.", "{name} once"),
        ("{name} was <born in> {value} or {value}.", "{value} once"),
        ("Somebody was <born in> {value}.", "{name} once"),
        ("{name} was <born>.", "{value} once"),
    ],
)
def test_parse_refuses(source: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template.parse(source)
    assert source in str(caught.value)
    assert complaint in str(caught.value)


def test_nothing_but_the_value_can_follow_the_text_before_it() -> None:
    """Otherwise even a model that knows everything could not tell value from text: the loss of
    "was born in {value}" would not reach zero beside "was born in the city of {value}"."""

    def symbols(template: Template) -> list[str]:
        out = []
        for kind, text in template.parts:
            out += words(text) if kind in ("text", "type") else [f"{{{kind}}}"]
        return out

    everything = [(t.source, symbols(t)) for group in templates().values() for t in group]
    for source, told in everything:
        before = told[: told.index("{value}")]
        for other, theirs in everything:
            if theirs[: len(before)] == before:
                assert theirs[len(before)] == "{value}", f"{source!r} against {other!r}"
