"""Changes of one setting, each of which may be why a claim of a study disagrees."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

from interp.studies import finetuning, forms, mnemonic, plateau, robustness
from interp.studies.study import Study

Case = Literal["before", "after"]
BEFORE: Case = "before"
AFTER: Case = "after"
CASES: tuple[Case, ...] = (BEFORE, AFTER)


@dataclass(frozen=True)
class Change:
    """One setting of a study, changed alone.

    Attributes:
        name: In a word or two, e.g. "batch size".
        study: The study whose claims are looked at again.
        claims: The claims that disagree, word by word; of each, that the change is why, as a sentence.
        others: What the setting was where the claim was found.
        shared: Settings of that study in both cases: no more runs than the claims need.
        changed: What is changed.
        words: What the setting is in each case.
        tables: The tables of that study that its claims or the figure read.
        figure: The anchor of that study's figure that shows it.
    """

    name: str
    study: Study
    claims: Mapping[str, str]
    others: str
    shared: Mapping[str, Any]
    changed: Mapping[str, Any]
    words: Mapping[Case, str]
    tables: tuple[str, ...]
    figure: str

    @property
    def varies(self) -> frozenset[str]:
        """What the study varies or decides itself."""
        varied: frozenset[str] = getattr(self.study.settings, "varies", frozenset())
        return varied

    def settings(self, case: Case) -> dict[str, Any]:
        """The settings of the study in a case."""
        return deepcopy({**self.shared, **(self.changed if case == AFTER else {})})


_ALL = (
    Change(
        "people",
        robustness.STUDY,
        {
            "The three phases are there whatever the learning rate": (
                "At twice the learning rate there are no three phases because people are few"
            ),
            "The three phases are there whatever the model size": (
                "At twice the width there are no three phases because people are few"
            ),
        },
        "64,000 people (section 3)",
        {
            "learning_rate": (3e-3,), "weight_decay": (), "batch_size": (), "n_layers": (),
            "d_model": (256,), "recurrent_seeds": (), "n_steps": 4000,
        },
        {"run": {"population.n_individuals": 2048}},
        {BEFORE: "512 people", AFTER: "2,048 people"},
        ("runs", "curves"),
        "robustness-learning-rate",
    ),
    Change(
        "batch size",
        plateau.STUDY,
        {
            "The plateau's length grows with the number of individuals as N^0.81": (
                "The plateau grows faster with the number of individuals because batches are small"
            ),
        },
        "batches of 128 sequences (section 3)",
        {"sizes": (256, 512, 1024, 2048)},
        {"run": {"training.batch_size": 128}},
        {BEFORE: "32 biographies a step", AFTER: "128 biographies a step"},
        ("runs", "fits"),
        "plateau-length",
    ),
    Change(
        "learning rate",
        finetuning.STUDY,
        {
            "Replay helps only in part": (
                "Replay helps wholly because fine-tuning has a high learning rate"
            ),
            "Fine-tuning on rare known people does no such harm": (
                "Fine-tuning on rare people harms the others because it has a high learning rate"
            ),
        },
        "3e-5, a thirteenth of that of training (Fig. 5)",
        {"replay_weights": (None, 0.125, 0.5)},
        {"learning_rate": 1.125e-4},
        {
            BEFORE: "a learning rate of 3e-4, a fifth of that of training",
            AFTER: "1.125e-4, a thirteenth",
        },
        ("scale", "curves"),
        "finetuning-curves",
    ),
    Change(
        "schedule",
        forms.STUDY,
        {
            "With many shuffled wordings, fine-tuned questions are answered about other people": (
                "Fine-tuned questions are answered about too few others because the rate stays high"
            ),
        },
        "96.6% of the other half with 5 wordings (Allen-Zhu & Li 2023, 3.1); a pilot of this project, of "
        "seed 0, whose rate fell to 0, answered 98.4%",
        {"biographies": ((20, "shuffled"),), "questions": ("all weights",)},
        {"schedule": "cosine"},
        {BEFORE: "a constant rate", AFTER: "a rate that falls to 0"},
        ("accuracy",),
        "forms-accuracy",
    ),
    Change(
        "layers",
        forms.STUDY,
        {
            "Questions mixed in from the start are answered about other people even with one wording": (
                "With one wording, mixed-in questions about others are not answered because layers are few"
            ),
        },
        "12 layers (Allen-Zhu & Li 2023, 3.1); pilots of this project, seed 0: neither four times the people "
        "nor four times the questions change it",
        {"biographies": ((1, "fixed"),), "questions": ("mixed",)},
        {"run": {"model.n_layers": 6}},
        {BEFORE: "2 layers", AFTER: "6 layers"},
        ("accuracy",),
        "forms-accuracy",
    ),
    Change(
        "rank",
        mnemonic.STUDY,
        {
            "An adapter that learns prose leaves the core intact and carries the language": (
                "An adapter does not carry the language because its rank is low"
            ),
        },
        "no rank is named",
        {
            "conditions": ("prose", "mnemonic, prose", "mnemonic, prose in an adapter"),
            "budgets": ("steps",),
        },
        {"adapter_rank": 64},
        {BEFORE: "rank 16", AFTER: "rank 64"},
        ("curves", "recall", "adapters"),
        "mnemonic-adapters",
    ),
)  # fmt: skip
CHANGES: Mapping[str, Change] = {change.name: change for change in _ALL}
"""By name. Settings, values and claims were written down before any of the runs was trained, those of
questions after pilots of seed 0."""
