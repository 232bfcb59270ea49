"""The studies, by name, in the order of the paper."""

from interp.studies import (
    associative_memory,
    celebrities,
    finetuning,
    hallucination,
    plateau,
    power_law,
    robustness,
    sequential,
    warm_up,
)
from interp.studies.study import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        plateau,
        robustness,
        power_law,
        celebrities,
        warm_up,
        hallucination,
        finetuning,
        sequential,
        associative_memory,
    )
}
"""A new study adds its module here."""
