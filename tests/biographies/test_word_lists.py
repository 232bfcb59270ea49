import re

import pytest

from interp.biographies import ATTRIBUTES, templates, word_list
from interp.biographies.lists import MONTHS, birth_dates, value_pools
from interp.biographies.tokenizer import words
from interp.config import LIST_SIZES, PopulationConfig

SIZES = {
    "first_names": 900,
    "middle_names": 900,
    "last_names": 1000,
    "cities": 800,
    "universities": 200,
    "majors": 100,
    "companies": 500,
}
NAMES = ("first_names", "middle_names", "last_names")
VALUES = ("cities", "universities", "majors", "companies")
# Letters, digits, inner apostrophes and hyphens; single spaces between words.
WORD = r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*"
ENTRY = re.compile(rf"{WORD}(?: {WORD})*")


def first_words(name: str) -> list[str]:
    return [entry.split()[0] for entry in word_list(name)]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_size(name: str, size: int) -> None:
    assert len(word_list(name)) == size
    assert LIST_SIZES[name] == size


@pytest.mark.parametrize("name", SIZES)
def test_no_duplicates(name: str) -> None:
    entries = [entry.lower() for entry in word_list(name)]
    assert sorted(set(entries)) == sorted(entries)


def test_no_entry_is_in_two_lists() -> None:
    entries = [entry.lower() for name in SIZES for entry in word_list(name)]
    assert len(set(entries)) == len(entries) == sum(SIZES.values())


@pytest.mark.parametrize("name", SIZES)
def test_allowed_characters(name: str) -> None:
    assert [entry for entry in word_list(name) if not ENTRY.fullmatch(entry)] == []


@pytest.mark.parametrize("name", NAMES)
def test_names_are_one_word(name: str) -> None:
    assert [entry for entry in word_list(name) if " " in entry] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_word_of_anything_else(name: str) -> None:
    taken = {w.lower() for other in VALUES for entry in word_list(other) for w in words(entry)}
    taken |= {month.lower() for month in MONTHS}
    for group in templates().values():
        for template in group:
            taken |= {w.lower() for _, text in template.parts for w in words(text)}
    for other in set(NAMES) - {name}:
        taken |= {entry.lower() for entry in word_list(other)}
    assert {entry.lower() for entry in word_list(name)} & taken == set()


@pytest.mark.parametrize("name", SIZES)
def test_entries_survive_tokenization(name: str) -> None:
    """No entry loses a part to the possessive or to punctuation."""
    assert [entry for entry in word_list(name) if words(entry) != entry.split()] == []


@pytest.mark.parametrize("name", ["universities", "majors", "companies"])
def test_first_words_tell_the_value(name: str) -> None:
    assert len(set(first_words(name))) == SIZES[name]


def test_no_company_starts_like_another_value() -> None:
    others = {word for name in ("cities", "universities", "majors") for word in first_words(name)}
    assert others & set(first_words("companies")) == set()


def test_birth_dates_are_all_days_months_and_years() -> None:
    dates = birth_dates(3)
    assert len(set(dates)) == len(dates) == 31 * 12 * 3
    assert (dates[0], dates[1], dates[3]) == ("1 January 1900", "1 January 1901", "1 February 1900")
    assert dates[-1] == "31 December 1902"
    assert "31 February 1901" in dates  # impossible dates are allowed


def test_pools_use_a_prefix_of_each_list() -> None:
    config = PopulationConfig(cities=7, universities=5, majors=4, companies=3, years=2)
    pools = value_pools(config)
    assert tuple(pools) == ATTRIBUTES
    assert pools["birth_place"] == pools["current_location"] == word_list("cities")[:7]
    assert [len(pool) for pool in pools.values()] == [7, 31 * 12 * 2, 7, 5, 4, 3]
