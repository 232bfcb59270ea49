"""The growth benchmark measures every point; nothing here is about how long anything takes."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from interp import Corpus, preset
from interp.knowledge import ValuePositions, split_batch
from tests.benchmarks.growth import ALONG, BEGIN, COLUMNS, END, QUICK, WHAT, figure, main, points
from tests.benchmarks.growth_point import in_rows, place_in_rows

ROOT = Path(__file__).parents[2]


def test_the_quick_table_has_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    command = ["growth", "--quick", "--out", str(tmp_path), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    main()  # its points are measured in processes of their own
    table = pd.read_csv(tmp_path / "growth.csv")
    assert tuple(table.columns) == COLUMNS
    assert not table.isna().any(axis=None)
    assert (table["quartile_1"] <= table["seconds"]).all()
    assert (table["seconds"] <= table["quartile_3"]).all()
    for along, values in QUICK.items():
        own = table[table["along"] == along]
        assert list(own["what"]) == len(values) * list(WHAT)
        assert own["x"].is_monotonic_increasing
        assert own["x"].nunique() == len(values)
        if along in ("people", "layers"):
            assert tuple(own["x"].unique()) == values
    short, long = table[table["along"] == "tokens"]["x"].unique()
    assert long == 2 * short
    rows = (tmp_path / "growth.md").read_text(encoding="utf-8")
    assert rows.count("\n") == 2 + sum(map(len, QUICK.values()))
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\n{rows}\n{END}\nafter\n"


def test_one_thing_grows_at_a_time() -> None:
    base = preset("tiny").identity()
    changed: dict[str, set[str]] = {}
    for along, (config, together) in points():
        new = config.identity()
        changed.setdefault(along, set()).update(name for name in base if new[name] != base[name])
        assert together == 1 or along == "tokens"
        assert config.training.batch_size % together == 0
    lists = changed.pop("vocabulary")
    assert "population.n_individuals" not in lists
    assert all(name.startswith("population.") for name in lists)
    assert changed == {
        "people": {"population.n_individuals"},
        "layers": {"model.n_layers"},
        "tokens": {"model.n_ctx"},
    }
    assert max(c.population.n_individuals for _, (c, _) in points()) == 262_144


@pytest.mark.parametrize("together", [1, 4])
def test_values_are_read_where_rows_have_them(together: int) -> None:
    corpus = Corpus.from_config(preset("smoke"))
    batch = split_batch(corpus, "evaluation")
    where = ValuePositions.of(batch)
    rows = in_rows(corpus, batch, together)
    assert rows.shape == (len(batch) / together, together * corpus.longest)
    row, position = place_in_rows(corpus, where, together)
    assert torch.equal(rows[row, position + 1], where.target)


def test_the_figure_shows_growth_from_one() -> None:
    table = pd.DataFrame(
        [(along, x, what, s * x, s * x / 2, s * x * 2, 10 * x)
         for along in ALONG for x in (2, 4) for s, what in enumerate(WHAT, 1)],
        columns=list(COLUMNS),
    )  # fmt: skip
    drawn = figure(table)
    lines = [trace for trace in drawn.data if trace.mode == "lines+markers"]
    assert len(lines) == (len(WHAT) + 1) * len(ALONG) - (len(ALONG) - 1)  # people make the corpus
    assert all(list(line.y) == [1, 2] for line in lines)
    shown = [line.name for line in lines if line.showlegend]
    assert len(shown) == len(set(shown)) == len(WHAT) + 1


def test_the_page_has_a_place_for_the_table() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
