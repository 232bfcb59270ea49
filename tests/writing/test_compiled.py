"""Facts written into models whose memory is known: at the last name token, in layer 0."""

import pytest
import torch

import interp
from interp.compiled import CompiledRecall
from interp.config import Variant
from interp.writing import edit_effect

PERSON = 3


@pytest.fixture(scope="module", params=["local", "distributed"])
def compiled(request: pytest.FixtureRequest) -> CompiledRecall:
    variant: Variant = request.param
    return interp.compile_recall(interp.preset("smoke"), variant)


@pytest.mark.parametrize("attribute", ["birth_place", "company"])
def test_a_value_of_one_token_is_written_and_all_else_stays(
    compiled: CompiledRecall, attribute: str
) -> None:
    people = compiled.corpus.population
    before = people.facts(PERSON)[attribute]
    new = next(
        value for value in people.lexicon.values[attribute]
        if value != before and len(value.split()) == 1
    )  # fmt: skip
    where = ({0: compiled.model}, [(people.name(PERSON), attribute, new)], 0, "last name")
    edit = interp.write_facts(*where, corpus=compiled.corpus, n_texts=2)
    assert max(edit.losses) < 0.1  # 3 nats and more when each entry had a second moment of its own
    effect = edit_effect(compiled.model, edit, compiled.corpus, n_others=4)
    written = effect.asked[effect.asked["new"]]
    assert (written["answer_before"] == before).all()
    assert (written["answer"] == new).all()
    kept = effect.asked[~effect.asked["new"]]
    assert (kept["answer"] == kept["answer_before"]).all()
    assert effect.others["right_before"].all()
    assert effect.others["right"].all()


def test_steps_do_not_depend_on_the_basis() -> None:
    from interp.writing.targets import _Descent

    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    slopes = torch.randn(5, 2, 6, generator=generator, dtype=torch.float64)
    straight, turned = (_Descent(torch.zeros(2, 6, dtype=torch.float64), 0.1) for _ in range(2))
    for slope in slopes:
        step, other = straight.step(slope), turned.step(slope @ turn)
        assert torch.allclose(step @ turn, other, atol=1e-12)
    first = _Descent(torch.zeros(1, 4), 0.1).step(torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
    assert first.tolist()[0] == pytest.approx([-0.2, 0.0, 0.0, 0.0])
