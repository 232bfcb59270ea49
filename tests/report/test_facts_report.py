"""The report on facts, and the commands on them, for a model and for a series that were not trained here."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

import interp
from interp.cli import main
from interp.errors import ArgumentError
from interp.facts import Facts
from interp.facts.measured import measure_facts
from interp.pretrained import Series
from interp.report.facts import write_facts_report

SUBJECTS = [f"{a} {b}" for a in ("Ada", "Bo", "Cy") for b in ("Elm", "Fir", "Gum")]
_TEXT = "Ada Bo Cy Elm Fir Gum The town of is likes city home red blue green <i>gold</i>"
WORDS = _TEXT.split()
TEMPLATE = "The [town] of {subject} is"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints with random weights."""
    built = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<pad>", *WORDS])}, unk_token="<pad>")
    )
    built.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), behavior="removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>")
    path = tmp_path_factory.mktemp("checkpoints")
    for step in (5, 10, 20):
        torch.manual_seed(step)
        config = GPTNeoXConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=32, initializer_range=0.4,
            use_parallel_residual=False, architectures=["GPTNeoXForCausalLM"],
        )  # fmt: skip
        folder = path / f"checkpoint-{step}"
        GPTNeoXForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return path


@pytest.fixture(scope="module")
def table(checkpoints: Path) -> pd.DataFrame:
    """What the last model says, as facts: so it knows them."""
    model = interp.load_model(checkpoints / "checkpoint-20")
    rows = []
    for subject in SUBJECTS:
        ids = model.tokenizer(f"The town of {subject} is", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            best = model(ids)[0, -1].topk(3).indices.tolist()
        answer = next(i for i in best if i and WORDS[i - 1] not in subject)
        rows.append((subject, "town", WORDS[answer - 1]))
    return pd.DataFrame(rows, columns=["subject", "relation", "answer"])


@pytest.fixture(scope="module")
def csv(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    table.assign(text=TEMPLATE).to_csv(path, index=False)
    return path


def test_a_page_on_a_series(checkpoints: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    series = Series.of_folder(checkpoints)
    tokenizer = interp.load_model(checkpoints / "checkpoint-20").tokenizer
    facts = Facts.from_table(table, tokenizer, {"town": TEMPLATE})
    measured = measure_facts(series, facts, n_pairs=4)
    assert measured.steps == [5, 10, 20]
    last = measured.known[measured.known["step"] == 20]
    assert len(measured.facts) == (last["rank"] == 1).sum() > 0
    assert {"attention", "roles", "swaps", "strengths", "emergence"} <= set(measured.tables)
    assert (measured.tables["roles"]["step"] == 20).all()
    assert "four wordings" in measured.not_measured["memory"], "what is missing says why"
    page = write_facts_report(series, measured, tmp_path / "page", "<b>model</b>").read_text()
    assert page.count("<b>model</b>") == 0, "names are text"
    for anchor in ("known", "attention", "swaps", "emergence", "one-fact", "attention-maps"):
        assert f'id="{anchor}"' in page
    assert "https://" not in page.split("<script")[0], "nothing from the network"


def test_commands_on_one_model(
    checkpoints: Path, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(checkpoints / "checkpoint-20"), tmp_path / "known.csv"
    main(["facts", model, str(csv), "--csv", str(out), "--limit", "2"])
    said = capsys.readouterr()
    assert "answers are the first guess" in said.out + said.err
    assert pd.read_csv(out)["rank"].min() == 1
    main(
        ["locate", model, SUBJECTS[0], "town", "--facts", str(csv), "--out", str(tmp_path / "fact")]
    )
    assert f"The town of {SUBJECTS[0]}" in capsys.readouterr().out
    main(["report", model, "--facts", str(csv), "--out", str(tmp_path / "page.html")])
    assert "Facts in checkpoint-20" in (tmp_path / "page.html").read_text()


def test_the_last_checkpoint_is_asked(checkpoints: Path, csv: Path, tmp_path: Path) -> None:
    one, series = tmp_path / "one.csv", tmp_path / "series.csv"
    main(["facts", str(checkpoints / "checkpoint-20"), str(csv), "--csv", str(one)])
    main(["facts", str(checkpoints), str(csv), "--csv", str(series)])
    assert one.read_bytes() == series.read_bytes()


def test_templates_in_a_file(checkpoints: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    path, words = tmp_path / "bare.csv", tmp_path / "templates.yaml"
    table.to_csv(path, index=False)
    words.write_text(f"town:\n  - '{TEMPLATE}'\n")
    command = ["facts", str(checkpoints / "checkpoint-20"), str(path)]
    main([*command, "--templates", str(words)])
    with pytest.raises(SystemExit):
        main(command)
    for wrong in ("- 1\n- 2\n", "town: {a: b}\n", "town: [1]\n"):
        words.write_text(wrong)
        with pytest.raises(SystemExit):
            main([*command, "--templates", str(words)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "MODEL"], "--facts"),
        (["locate", "MODEL", "Ada Elm", "town"], "--facts"),
        (["locate", "MODEL", "Ada Oak", "town", "--facts", "CSV"], "no subject 'Ada Oak'"),
        (["facts", "MODEL", "nowhere.csv"], "cannot be read"),
        (["facts", "nowhere/at/all", "CSV"], "no folder"),
        (["report", "MODEL", "MODEL", "--facts", "CSV"], "one model"),
    ],
)
def test_commands_refuse(
    words: list[str], said: str, checkpoints: Path, csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": str(checkpoints / "checkpoint-20"), "CSV": str(csv)}
    with pytest.raises(SystemExit) as ended:
        main([places.get(word, word) for word in words])
    assert ended.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "Traceback" not in error


def test_a_model_that_knows_nothing(checkpoints: Path) -> None:
    series = Series.of_folder(checkpoints)
    tokenizer = interp.load_model(checkpoints / "checkpoint-20").tokenizer
    facts = Facts.from_table([("Ada", "town", "Ada")], tokenizer, {"town": TEMPLATE})
    if facts.known(interp.load_model(checkpoints / "checkpoint-20"))["rank"][0] > 1:
        with pytest.raises(ArgumentError, match="knows none"):
            measure_facts(series, facts)
