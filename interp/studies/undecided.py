"""Claims that their studies could not decide, each with further seeds and no more runs than it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interp.memory.kind import DECIDES
from interp.studies import compiled, differences, equations, finetuning, memory_kind, warm_up
from interp.studies.differences_measured import LARGEST, PLAIN, UNEVEN, UNIFORM
from interp.studies.finetuning_claims import STABLE
from interp.studies.study import Study

FIRST_SEED = 3
"""Seeds before it are those that the studies themselves have, and that a number of seeds follows from."""


@dataclass(frozen=True)
class Undecided:
    """A claim to decide by the mean over seeds that its study does not have.

    Attributes:
        name: In a few words, e.g. "memory of random features".
        study: The study whose claim it is.
        claim: The claim, word by word.
        asked: What is asked of the mean, as a sentence.
        number: In words, with its unit, the one number that the rule of the claim reads of each seed.
        settings: Settings of the study: no more runs than the number needs.
        seeds: How many, from `FIRST_SEED` on: at least as many as would tell the mean apart from the
            threshold, if mean and spread were those of the study's own seeds.
        threshold: What the mean is held against: the one from which the study's rule says agree; 0 where
            that rule has one on each side of 0.
        side: On which side of it the claim is right.
        needed: Which of the study's runs the number is read of.
        form: How values are written.
    """

    name: str
    study: Study
    claim: str
    asked: str
    number: str
    settings: Mapping[str, Any]
    seeds: int
    threshold: float
    side: Literal["above", "below"]
    needed: Callable[[Any], bool] = lambda config: True
    form: str = ".2f"

    @property
    def own_seeds(self) -> tuple[int, ...]:
        """The seeds it is asked of."""
        return tuple(range(FIRST_SEED, FIRST_SEED + self.seeds))

    @property
    def varies(self) -> frozenset[str]:
        """What the study varies or decides itself."""
        varied: frozenset[str] = getattr(self.study.settings, "varies", frozenset())
        return varied


_ALL = (
    Undecided(
        "kind of memory",
        memory_kind.STUDY,
        "With names of three tokens, a trained model has an associative memory",
        "On average over seeds, three quarters of what a model with names of three tokens recalls is an "
        "associative memory",
        "associative (share of recalled pairs)",
        {"names": ("three tokens",)},
        5,
        DECIDES,
        "above",
    ),
    Undecided(
        "groups of equations",
        equations.STUDY,
        "Groups of people become subsystems of their own only after the plateau",
        "On average over seeds, groups of people agree with themselves by 0.1 more after the plateau than in "
        "it",
        "agreement of a group with itself, third phase less plateau (cosine)",
        {"parts": ("residuals",)},
        13,
        0.1,
        "above",
        form="+.3f",
    ),
    Undecided(
        "memory of random features",
        compiled.STUDY,
        "A distributed memory holds facts in proportion to its neurons",
        "On average over seeds, a distributed memory holds facts in proportion to its neurons",
        "slope of the logarithm of neurons on that of people",
        {"models": (("local", 128),), "descent_people": (128,), "descent_neurons": (4,), "descent_steps": 1},
        65,
        0.85,
        "above",
        needed=lambda config: False,
        form=".3f",
    ),
    Undecided(
        "fewer people",
        warm_up.STUDY,
        "A warm-up beats training on fewer people only, counted over everybody",
        "On average over seeds, a warm-up beats training on fewer people only, counted over everybody",
        "final accuracy, warm-up less fewer people",
        {"indiv_warmup": (256,), "epochs_warmup": (12.0,)},
        13,
        0.0,
        "above",
        needed=lambda config: config.sampling.kind == "warm_up"
        or config.population.n_individuals == warm_up.WarmUpSettings().n_fewer,
        form="+.3f",
    ),
    Undecided(
        "attention in fine-tuning",
        finetuning.STUDY,
        "Attention stays as it was while old knowledge is lost",
        "On average over seeds, no attention changes by more than a tenth while old knowledge is lost",
        "largest change of a share of attention",
        {"replay_weights": (None,)},
        29,
        STABLE,
        "below",
        needed=lambda config: config.finetuning.people == "new",
        form=".3f",
    ),
    Undecided(
        "rare people",
        differences.STUDY,
        "Selecting by loss helps most where some people are rare",
        "On average over seeds, selecting by loss saves a tenth more where some people are rare",
        "saving with uneven data, against that with uniform data (times)",
        {"conditions": (PLAIN, LARGEST), "elsewhere": (PLAIN, LARGEST), "data": (UNIFORM, UNEVEN)},
        34,
        1.1,
        "above",
        needed=lambda config: config.finetuning.people is None,
    ),
    Undecided(
        "adaptive schedule",
        warm_up.STUDY,
        "An adaptive schedule, with no setting for when to switch, does as well as the best fixed warm-up",
        "On average over seeds, an adaptive schedule ends at most 0.02 below the best fixed warm-up",
        "final accuracy, adaptive less warm-up",
        {
            "indiv_warmup": (256,), "epochs_warmup": (12.0,), "indiv_adaptive": (256,),
            "growth": ("gradual",),
        },
        251,
        -0.02,
        "above",
        needed=lambda config: config.sampling.kind in ("warm_up", "adaptive"),
        form="+.3f",
    ),
)  # fmt: skip
UNDECIDED: Mapping[str, Undecided] = {one.name: one for one in _ALL}
"""By name. Settings, seeds and thresholds were written down before any of these seeds was measured."""
