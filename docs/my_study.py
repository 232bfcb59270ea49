"""Larger batches.

Does a batch twice as large end the plateau after fewer steps?

Command: interp batch docs/my_study.py --out runs/my_study --workers 2
Duration: 6 runs of up to 1,500 steps, 1 to 2 minutes each on one core
"""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from interp.plots import describe
from interp.run import Run
from interp.seeds import spread
from interp.studies import Claim, Planned, Rule, Statement, Study, StudySettings, Tables


class Settings(StudySettings):
    """Beside `preset`, `seeds` and `run`, which every study has."""

    batch_sizes: tuple[int, int] = (32, 64)


def runs(settings: Settings) -> list[Planned]:
    return [
        Planned(settings.config(seed, **{"training.batch_size": size}))
        for size in settings.batch_sizes
        for seed in settings.seeds
    ]


def tables(settings: Settings, runs: Sequence[Run]) -> Tables:
    rows = [(r.config.training.batch_size, r.config.seed, r.phases.plateau_end) for r in runs]
    return {"ends": pd.DataFrame(rows, columns=["batch_size", "seed", "plateau_end"])}


def figures(tables: Tables) -> dict[str, go.Figure]:
    ends = tables["ends"]
    figure = go.Figure(go.Scatter(x=ends["batch_size"], y=ends["plateau_end"], mode="markers"))
    figure.update_layout(xaxis_title="batch (biographies)", yaxis_title="plateau end (step)")
    return {"ends": describe(figure, "End of the plateau", "Look for points that fall.")}


SOONER = Statement[pd.Series](
    "With twice the batch the plateau ends after fewer steps",
    "for batches of 32 to 512 sequences the three phases are there (section 3)",
    Rule.each("It ends at least {margin} steps earlier.", lambda gain, margin: gain >= margin, margin=25),
    lambda gains: f"earlier by {spread(gains, '.0f')} steps",
)  # fmt: skip


def claims(tables: Tables) -> list[Claim]:
    ends = tables["ends"].pivot_table("plateau_end", "seed", "batch_size").dropna()
    gains = [] if ends.shape[1] < 2 else list(ends.iloc[:, 0] - ends.iloc[:, 1])
    return [SOONER.against(gains)]


STUDY = Study("my_study", __doc__, Settings, runs, tables, figures, claims)
