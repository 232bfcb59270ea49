"""Hallucination: what a model says of people it has never seen (paper, Fig. 5 left, M)."""

from interp.experiments.study import Planned, StudySettings


class HallucinationSettings(StudySettings):
    """Settings of the study of people whom a model has never seen."""


def planned(settings: HallucinationSettings) -> list[Planned]:
    """The runs that settings ask for: the preset as it is, everything measured."""
    return [Planned(settings.config(seed)) for seed in settings.seeds]
