"""Models from folders and the hub's cache, and series of them; what is wrong with a folder."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

import interp
from interp.errors import ArgumentError, CheckpointError, ConfigError
from interp.pretrained import folder as of_folder
from interp.pretrained import load
from tests.facts.capitals import CAPITALS, TEMPLATES
from tests.facts.conftest import make_tokenizer

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3,
    "intermediate_size": 64, "max_position_embeddings": 64,
    "use_parallel_residual": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("byte-level")


def write_model(path: Path, tokenizer: PreTrainedTokenizerFast, seed: int = 0, **more: Any) -> Path:
    torch.manual_seed(seed)
    config = transformers.GPTNeoXConfig(
        **{**SMALL, **more}, vocab_size=len(tokenizer), architectures=["GPTNeoXForCausalLM"]
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "neox", tokenizer)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_the_logits_are_those_of_transformers(saved: Path) -> None:
    model = interp.load_model(saved)
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        saved, attn_implementation="eager"
    ).eval()
    tokens = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(tokens), plain(tokens).logits)
    assert not model.training
    assert model.tokenizer.encode("The capital") == make_tokenizer("byte-level").encode(
        "The capital"
    )
    with pytest.raises(ArgumentError, match="without its tokenizer"):
        interp.load_model(plain)
    assert torch.equal(interp.load_model(plain, tokenizer=model.tokenizer)(tokens), model(tokens))


def test_folders_that_hold_no_model(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no folder.*nowhere"):
        interp.load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        interp.load_model(tmp_path / "empty")
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="shorter than its header"):
        interp.load_model(copy)
    weights.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        interp.load_model(copy)
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle.*safetensors"):
        interp.load_model(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        interp.load_model(copy)
    (copy / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is no folder of a model"):
        interp.load_model(copy)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_hidden_layers": 3}, "lacks 'gpt_neox.layers.2.*and 11 more"),
        ({"num_hidden_layers": 1}, "has beyond that 'gpt_neox.layers.1"),
        ({"num_hidden_layers": 0}, "without layers"),
        ({"intermediate_size": 32}, "has in another size 'gpt_neox.layers.0.mlp"),
        (
            {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
            "of the GPT2LMHeadModel.*lacks",
        ),
        ({"num_attention_heads": 0}, "transformers cannot load"),
        ({"hidden_size": "wide"}, "transformers cannot load"),
        ({"auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}, "custom code"),
    ],
)
def test_a_config_of_other_weights(copy: Path, changed: dict[str, Any], said: str) -> None:
    """transformers fills what is missing with random numbers, and leaves out what is too much."""
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(CheckpointError) as caught:
        interp.load_model(copy)
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_in_the_file(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 'gpt_neox\.layers\.1\.mlp\.dense_h_to_4h"):
        interp.load_model(copy)
    save_file(tensors, file, metadata={"format": "pt"})
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="longer than its header"):
        interp.load_model(copy)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_no_numbers(copy: Path, value: str) -> None:
    """A patch of such a model would say that no prediction ever follows."""
    file = copy / "model.safetensors"
    tensors = load_file(file)
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = float(value)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"hold NaN.*layers\.1\.mlp\.dense_h_to_4h"):
        interp.load_model(copy)


def test_a_folder_without_a_tokenizer(copy: Path) -> None:
    """transformers makes up an empty one for NeoX: every text would have no tokens."""
    for file in copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ArgumentError, match=r"tokenizer"):
        interp.load_model(copy)


def test_a_device_that_is_not_there(saved: Path) -> None:
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ArgumentError, match=f"device='{device}'"):
            interp.load_model(saved, device=device)
    assert interp.load_model(saved, device="cpu").cfg.device == "cpu"


@pytest.mark.parametrize("name", ["", "x" * 5000, "a/\0"])
def test_names_that_no_folder_has(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no folder|is empty"):
        interp.load_model(name)
    with pytest.raises(CheckpointError):
        interp.Series.of_folder(name)


def test_weights_in_several_files(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in halves.items():
        save_file({name: tensors[name] for name in some}, copy / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, some in halves.items() for n in some}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert interp.load_model(copy).cfg.n_layers == 2
    (copy / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks b\.safetensors, one of its 2 files"):
        interp.load_model(copy)


def test_a_model_too_large_is_refused_before_it_is_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_folder, "memory_bytes", lambda: 10_000)
    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(ConfigError, match=r"billion weights.*this machine has"):
        interp.load_model(saved)


@pytest.fixture
def hub(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A cache as the hub's library lays it out, with two revisions of one model; no network."""
    import huggingface_hub.constants as constants

    cache = tmp_path / "hub"
    repository = cache / "models--lab--little"
    for step in (0, 100):
        commit = f"{step:040d}"
        write_model(repository / "snapshots" / commit, tokenizer, seed=step)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / f"step{step}").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def test_checkpoints_of_the_hub(hub: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    series = interp.Series.of_hub("lab/little", steps=[100, 0])
    assert series.steps == [0, 100]
    weights = [model.W_E.clone() for _, model in series.models(series.steps)]
    assert not torch.equal(*weights)
    facts = interp.Facts.from_table(CAPITALS, tokenizer, TEMPLATES)
    scores = interp.attention_to_names(series, texts=facts.texts)
    assert scores["step"].unique().tolist() == [0, 100]
    missing = interp.Series.of_hub("lab/little", steps=[0, 7])
    with pytest.raises(CheckpointError, match=r"revision 'step7'.*not in the local cache"):
        list(missing.models([7]))
    with pytest.raises(CheckpointError, match="no model of that name"):
        interp.load_model("lab/other")
    with pytest.raises(ArgumentError, match="at least one step"):
        interp.Series.of_hub("lab/little", steps=[])
    with pytest.raises(ArgumentError, match=r"no \{\} for the step"):
        interp.Series.of_hub("lab/little", steps=[1], revision="main")
    for wrong in ("step{", "step{step}", "{}{}"):
        with pytest.raises(ArgumentError, match=r"no \{\} for the step"):
            interp.Series.of_hub("lab/little", steps=[1], revision=wrong)


@pytest.fixture(scope="module")
def checkpoints(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    path = tmp_path_factory.mktemp("out")
    for step in (20, 100):
        write_model(path / f"checkpoint-{step}", tokenizer, seed=step)
    return path


def test_a_series_of_folders(checkpoints: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    series = interp.Series.of_folder(checkpoints)
    assert series.steps == [20, 100]
    facts = interp.Facts.from_table(CAPITALS, tokenizer, TEMPLATES)
    here = interp.knockout(series, texts=facts.texts)
    sent = pickle.loads(pickle.dumps(series))  # as it is to workers
    models = {step: interp.load_model(checkpoints / f"checkpoint-{step}") for step in (20, 100)}
    assert here["step"].unique().tolist() == [20, 100]
    assert here.equals(interp.knockout(models, texts=facts.texts))
    assert here.equals(interp.knockout(sent, texts=facts.texts, workers=1))
    fact = interp.locate_fact(series, facts.prompt("France"), step=20)
    assert fact.history["step"].tolist() == [20, 100]


def test_series_that_are_none(
    checkpoints: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = checkpoints / "checkpoint-20"
    with pytest.raises(ArgumentError, match="at least one folder"):
        interp.Series({})
    with pytest.raises(CheckpointError, match="no folder"):
        interp.Series({0: tmp_path / "none"})
    with pytest.raises(ArgumentError, match="whole number"):
        interp.Series({-1: first})
    with pytest.raises(ArgumentError, match="in memory"):
        interp.Series({0: interp.load_model(first)})
    other = write_model(tmp_path / "other", tokenizer, num_hidden_layers=1)
    with pytest.raises(ArgumentError, match=r"num_hidden_layers is 2 at step 0 and 1 at step 5"):
        interp.Series({0: first, 5: other})
    with pytest.raises(CheckpointError, match=r"checkpoint-500"):
        interp.Series.of_folder(tmp_path / "nothing")
    for name in ("a5", "b5"):
        (tmp_path / "twice" / name).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="two folders of step 5"):
        interp.Series.of_folder(tmp_path / "twice")
