"""Damaged and hostile files in a run's folder: a result, or one line that says what is wrong."""

import contextlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import interp
from interp.config import Config
from interp.run import Run
from interp.training import loop
from tests.helpers import contents, run_cli, unprivileged, without_digests

TRAIN = ("train", "smoke", "--resume", "--training.precision", "fp32", "--out")
COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "training_state.safetensors": (TRAIN,),
    "checkpoints": (("export", "--out", "exported"), ("locate", "0", "major", "--step", "0")),
    "tokenizer": (("people",), ("export", "--out", "exported")),
    "results": (("summary", "--csv", "summary.csv"), ("memory",)),
    "": (("phases",), TRAIN, ("summary", "--csv", "summary.csv"), ("people",)),
}
"""Of each file of a run, the commands that read it (those of "" read the rest)."""
OTHER = [
    b"", b"\n", b"\x00" * 300, b"null\n", b"3\n", b"[]\n", b"{}\n", b'"text"\n', b"[" * 100_000,
    b"\xff\xfe\n",
    b"1e999\n", b"9" * 5000, b"{\"a\": NaN}\n", b"a: [\n", b"a,b\n", b"\x1b[31m[bold]\n",
    b"PK\x03\x04" + bytes(60),
    (2**63).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
    b'{"step": 3}\n', b'{"model": {"vocab": {}}}', b'{"digests": {"metrics.jsonl": "0"}}',
]  # fmt: skip
"""What may lie in place of a file."""


def said(folder: Path, command: tuple[str, ...]) -> str:
    """What a command on a run says on standard error; fails unless it ends in a result or in one line."""
    arguments = [str(folder.parent / a) if a in ("exported", "summary.csv") else a for a in command]
    arguments = [*arguments, folder] if command is TRAIN else [arguments[0], folder, *arguments[1:]]
    errors = io.StringIO()
    with (
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "The run goes on in another environment")
        code = run_cli(*arguments)
    text = errors.getvalue()
    if code != 0:
        assert code == 2, text
        text = text[text.find("error: ") :]  # after what a command says of its progress
        assert text.startswith("error: ")
        assert text.count("\n") == 1, text
        assert len(text.replace(str(folder), "runs/tiny/0")) <= 500, text
    return text if code else ""


@pytest.fixture(scope="module")
def whole(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to damage; what is changed is put back from `finished`."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    return Path(shutil.copytree(finished.path, folder, ignore=shutil.ignore_patterns("runs")))


@pytest.fixture(scope="module")
def unfinished(smoke: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed before it counted as finished."""
    folder = tmp_path_factory.mktemp("unfinished") / "run"

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "write_ending", kill)
        with pytest.raises(Killed):
            interp.train(smoke, folder, progress=False)
    assert (folder / "training_state.safetensors").exists()
    return folder


@contextlib.contextmanager
def changed(folder: Path, name: str, content: bytes | None) -> Iterator[Path]:
    """While this lasts, a file of a run has another content; None: it is gone."""
    path = folder / name
    before = contents(folder)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        yield path
    finally:
        shutil.rmtree(folder)
        for other, was in before.items():
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_bytes(was)


def edited_tensors(path: Path, how: str) -> None:
    """Writes a safetensors file with other tensors and the metadata as it was."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    moments = [name for name in tensors if name.startswith("exp_avg.")]
    if how == "no moments":
        tensors = {name: t for name, t in tensors.items() if name.startswith("weights.")}
    elif how == "a moment missing":
        del tensors[moments[0]]
    elif how == "a weight missing":
        del tensors[next(name for name in tensors if name.startswith("weights."))]
    elif how == "zeroed weights":
        for name in tensors:
            if name.startswith("weights."):
                tensors[name].zero_()
    elif how == "a flipped bit":
        flat = tensors[max(tensors, key=lambda name: tensors[name].numel())].reshape(-1)
        flat.view(torch.uint8)[5] ^= 1
    elif how == "another step":
        metadata["interp"] = metadata["interp"].replace('"step": "40"', '"step": "20"')
    elif how.startswith("step "):
        noted = json.loads(metadata["interp"])
        metadata["interp"] = json.dumps({**noted, "step": how.removeprefix("step ")})
    elif how == "a digest of another name":
        metadata["interp"] = metadata["interp"].replace('"digest"', '"digesu"')
    elif how == "no digest":
        noted = json.loads(metadata["interp"])
        metadata["interp"] = json.dumps(
            {name: noted[name] for name in noted if name not in ("digest", "metrics")}
        )
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no moments", "damaged"),
        ("a moment missing", "damaged"),
        ("a weight missing", "damaged"),
        ("zeroed weights", "damaged"),
        ("a flipped bit", "damaged"),
        ("another step", "damaged"),
        ("a digest of another name", "not the training state"),
        ("no digest", ""),
    ],
)
def test_a_training_state_is_what_was_saved(how: str, says: str, unfinished: Path) -> None:
    name = "training_state.safetensors"
    with changed(unfinished, name, (unfinished / name).read_bytes()) as path:
        edited_tensors(path, how)
        before = contents(unfinished)
        text = said(unfinished, TRAIN)
        assert says in text
        if says:
            assert f"{path} is" in text
            assert "Delete it to train the run from the start" in text
            changed_since = {n for n, was in contents(unfinished).items() if was != before[n]}
            assert not changed_since, "nothing is trained, and nothing lost"


@pytest.mark.parametrize("how", ["no moments", "a moment missing", "a weight missing"])
def test_an_older_training_state_has_to_be_whole(how: str, unfinished: Path) -> None:
    name = "training_state.safetensors"
    with changed(unfinished, name, (unfinished / name).read_bytes()) as path:
        edited_tensors(path, "no digest")
        edited_tensors(path, how)
        assert f"{path} is damaged: " in said(unfinished, TRAIN)


@pytest.mark.parametrize("step", ["41", "9" * 30, "-1", "1.5"])
def test_a_step_that_the_run_does_not_have(step: str, unfinished: Path) -> None:
    """In a state without a digest; training from there would not end."""
    name = "training_state.safetensors"
    with changed(unfinished, name, (unfinished / name).read_bytes()) as path:
        edited_tensors(path, "no digest")
        edited_tensors(path, f"step {step}")
        assert f"{path} is not the training state" in said(unfinished, TRAIN)


def test_metrics_are_those_of_the_training_state(unfinished: Path) -> None:
    name = "metrics.jsonl"
    lines = (unfinished / name).read_bytes().splitlines(keepends=True)
    for content in (b"".join(lines[:3] + lines[4:]), b"".join(lines).replace(b"0.", b"1.", 1)):
        with changed(unfinished, name, content):
            text = said(unfinished, TRAIN)
            assert "metrics.jsonl is not as it was when step 40 was saved" in text
            assert "--overwrite" in text
    with changed(unfinished, name, b"".join(lines) + b'{"step": 40, "spl'):
        assert said(unfinished, TRAIN) == ""


@pytest.mark.parametrize("how", ["a flipped bit", "a digest of another name", "no digest"])
def test_a_checkpoint_is_what_was_saved(how: str, whole: Path) -> None:
    name = "checkpoints/step_00000000.safetensors"
    with changed(whole, name, (whole / name).read_bytes()) as path:
        edited_tensors(path, how)
        text = said(whole, ("export", "--out", "exported", "--step", "0"))
        assert (str(path) in text) == (how != "no digest")


@pytest.mark.parametrize(
    ("name", "change", "command"),
    [
        ("metrics.jsonl", (b'"value": 8.7', b'"value": 8.6'), ("phases",)),
        ("environment.json", (b'"threads": 1', b'"threads": 2'), ("people",)),
        ("tokenizer/tokenizer.json", (b": 20", b": 21"), ("people",)),
        ("results/attention/scores.csv", (b"0.1", b"0.2"), ("report",)),
        ("results/knowledge/summary.json", (b": 0.", b": 0.9"), ("summary", "--csv", "s.csv")),
        ("results/attention/summary.json", (b": 0.", b": 0.9"), ("report",)),
    ],
)
def test_a_value_that_was_changed_later(
    name: str, change: tuple[bytes, bytes], command: tuple[str, ...], whole: Path
) -> None:
    """It is as good as the true one, but for the digest."""
    was = (whole / name).read_bytes()
    content = was.replace(*change, 1)
    assert content != was
    with changed(whole, name, content) as path:
        text = said(whole, command)
        assert str(path) in text
        assert "changed" in text or "not as it was" in text


KINDS = {
    "a FIFO": (lambda path: os.mkfifo(path), "FIFO"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "device"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "link to 'nowhere' leads nowhere"),
    "a looped link": (lambda path: path.symlink_to(path.name), "link that leads back"),
    "unreadable": (lambda path: (path.touch(), path.chmod(0)), "no permission"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.yaml", ("phases",)),
        ("metrics.jsonl", ("phases",)),
        ("environment.json", ("people",)),
        ("finished.json", ("people",)),
        ("tokenizer/tokenizer.json", ("people",)),
        ("tokenizer/tokenizer_config.json", ("people",)),
        ("checkpoints/step_00000040.safetensors", ("export", "--out", "exported")),
        ("results/attention/summary.json", ("summary", "--csv", "summary.csv")),
        ("results/attention/scores.csv", ("report",)),
        ("training_state.safetensors", TRAIN),
    ],
)
def test_something_else_in_place_of_a_file(
    kind: str, name: str, command: tuple[str, ...], whole: Path, unfinished: Path
) -> None:
    folder = unfinished if command is TRAIN else whole
    make, says = KINDS[kind]
    with changed(folder, name, None) as path:
        make(path)
        with unprivileged(folder) if kind == "unreadable" else contextlib.nullcontext():
            text = said(folder, command)
    if name.endswith("summary.json") and "link" in kind:  # as if there were none
        assert "has no result of: attention" in text
    elif command is TRAIN and "link" in kind:
        assert not text
    elif command is TRAIN and kind == "unreadable":
        assert "Permission denied" in text  # the folder cannot be written either
    else:
        assert says in text
        assert path.name in text


def names_of(folder: Path) -> list[str]:
    return sorted(
        n for n in contents(folder) if not n.endswith((".html", "runs")) and n != "summary.json"
    )


@st.composite
def mutations(draw: st.DrawFn, was: bytes) -> bytes | None:
    """Another content for a file; None: it is gone."""
    how = draw(
        st.sampled_from(["flip", "cut", "zero", "other", "bytes", "insert", "twice", "gone"])
    )
    if how == "gone":
        return None
    if how == "other":
        return draw(st.sampled_from(OTHER))
    if how == "bytes":
        return draw(st.binary(max_size=200))
    # In a safetensors file the header is where it can go wrong in more than one way.
    end = draw(st.sampled_from([len(was), min(len(was), 200), min(len(was), 6000)]))
    place = draw(st.integers(0, max(0, end - 1)))
    if how == "cut":
        return was[:place]
    if how == "flip" and was:
        return was[:place] + bytes([was[place] ^ 1 << draw(st.integers(0, 7))]) + was[place + 1 :]
    if how == "zero":
        size = draw(st.integers(1, 600))
        return was[:place] + bytes(len(was[place : place + size])) + was[place + size :]
    if how == "insert":
        return was[:place] + draw(st.binary(max_size=8)) + was[place:]
    return was + was


def fuzz(folder: Path, name: str, content: bytes | None) -> None:
    kind = name if name in COMMANDS else name.split("/")[0]
    for command in COMMANDS.get(kind, COMMANDS[""]):
        if command is TRAIN and kind == "config.yaml":
            continue  # it may be the settings of a long training
        with changed(folder, name, content):
            said(folder, command)


def check_any_content(whole: Path, unfinished: Path, tmp_path: Path, n: int) -> None:
    old = without_digests(Path(shutil.copytree(whole, tmp_path / "old" / "run")))
    folders = (whole, old, unfinished)

    # Not made smaller: a command takes its time, and the file is named.
    @settings(
        max_examples=n,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        folder = data.draw(st.sampled_from(folders))
        name = data.draw(st.sampled_from(names_of(folder)))
        fuzz(folder, name, data.draw(mutations((folder / name).read_bytes())))

    check()


def test_any_content_of_any_file(whole: Path, unfinished: Path, tmp_path: Path) -> None:
    check_any_content(whole, unfinished, tmp_path, 8)


@pytest.mark.slow
def test_any_content_of_any_file_for_long(whole: Path, unfinished: Path, tmp_path: Path) -> None:
    check_any_content(whole, unfinished, tmp_path, 600)
