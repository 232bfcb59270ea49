"""The frozen word lists: names and attribute values. `data/README.md` says where they come from."""

from functools import cache
from importlib.resources import files

from interp.config import PopulationConfig

ATTRIBUTES = ("birth_place", "birth_date", "current_location", "university", "major", "company")
"""The six attributes, in the order used for every axis named `attribute`."""

NAME_PARTS = ("first", "middle", "last")
"""The three parts of a full name."""

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = 31
FIRST_YEAR = 1900
DATES_ARE_DRAWN = (
    "Birth dates are a day from 1 to 31, a month and a year, drawn independently: some, such as "
    "31 September, are in no calendar."
)
"""What readers are told where they meet birth dates."""


@cache
def word_list(name: str) -> tuple[str, ...]:
    """A frozen list of the package, e.g. `word_list("cities")`: one entry each, in a fixed order."""
    text = files("interp.biographies").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def name_pools(config: PopulationConfig) -> tuple[tuple[str, ...], ...]:
    """The first, middle and last names that a population uses."""
    return (
        word_list("first_names")[: config.first_names],
        word_list("middle_names")[: config.middle_names],
        word_list("last_names")[: config.last_names],
    )


def birth_dates(years: int) -> tuple[str, ...]:
    """All dates "day month year", the day slowest and the year fastest; impossible ones included."""
    return tuple(
        f"{day} {month} {FIRST_YEAR + year}"
        for day in range(1, DAYS + 1)
        for month in MONTHS
        for year in range(years)
    )


def value_pools(config: PopulationConfig) -> dict[str, tuple[str, ...]]:
    """The values of every attribute that a population uses; all are equally likely."""
    cities = word_list("cities")[: config.cities]
    return {
        "birth_place": cities,
        "birth_date": birth_dates(config.years),
        "current_location": cities,
        "university": word_list("universities")[: config.universities],
        "major": word_list("majors")[: config.majors],
        "company": word_list("companies")[: config.companies],
    }
