"""The README.md of a run's folder: what the run is, the same for the same settings, never somebody else's."""

import shutil
from pathlib import Path

import pytest

import interp
from interp.config import Config
from interp.run import Run
from interp.run.origin import origin_sentences
from interp.run.readme import README, readme, remove_readme, write_readme
from tests.helpers import contents


def test_it_says_what_the_run_is(short_run: Run) -> None:
    text = (short_run.path / README).read_text(encoding="utf-8")
    for words in (
        "preset smoke, seed 0",
        "24 people",
        "12 steps",
        "interp.Run.load",
        "interp report .",
        "cite",
    ):
        assert words in text
    assert str(short_run.path) not in text
    for name in contents(short_run.path):
        part = Path(name).parts[0]
        assert part == README or f"`{part}" in text, "every file is explained"


def test_other_runs_are_named_without_their_place(smoke: Config) -> None:
    settings = {
        "finetuning.base": "/somewhere/else/base",
        "finetuning.base_run": "0123456789abcdef",
    }
    config = interp.finetuned(smoke, **settings)
    text = readme(config, {"base": {"step": 40}}, 13)
    assert "Fine-tuned: training started from the run base (settings 0123456789ab, step 40)" in text
    assert "/somewhere" not in text
    assert origin_sentences(smoke, {}) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model.recurrence": "rg_lru"}, "A recurrent model (RG-LRU)"),
        ({"data.stages": [{"forms": [{"form": "question"}]}]}, "Forms of text: question."),
        ({"selection.kind": "random", "selection.k": 4}, "was selected: random of 4 candidates"),
        ({"adapter.rank": 2, "data.stages": [{"weights": "adapter"}]}, "An adapter (LoRA, rank 2"),
        ({"adapter.rank": 2, "data.stages": [{"weights": "adapter"}]}, "biography (training the adapter"),
        ({"patching.reference": "a/b", "patching.reference_step": 4}, "the attention of the run b (step 4)"),
        ({"patching.reference": "self"}, "by its own patterns, the control"),
        ({"compiled.variant": "local"}, "interp compile smoke --variant local --out"),
        ({"merging.of": ["0" * 64], "merging.factors": [1.0]}, "by `interp merge`"),
    ],
)  # fmt: skip
def test_it_says_where_weights_and_texts_come_from(
    settings: dict[str, object], words: str, smoke: Config
) -> None:
    assert words in readme(smoke.with_settings(**settings), {}, 0)


def test_a_file_of_the_users_own_stays(short_run: Run, tmp_path: Path) -> None:
    run = Run.load(shutil.copytree(short_run.path, tmp_path / "run"))
    path = run.path / README
    ours = path.read_bytes()
    path.write_text("My notes.", encoding="utf-8")
    write_readme(run)
    remove_readme(run.path)
    assert path.read_text(encoding="utf-8") == "My notes."
    path.unlink()
    write_readme(run)
    assert path.read_bytes() == ours
    remove_readme(run.path)
    assert not path.exists()
    assert Run.load(run.path).finished, "runs of before have none"
