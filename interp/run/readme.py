"""The README.md of a run's folder: what the run is, how it was made and opened, what each file is.

It says nothing of when, where or how fast: the same settings give the same bytes, where other runs that took
part lie in folders of the same name.
"""

from pathlib import Path

from interp.biographies import PEOPLE_FILE, TEMPLATES_FILE
from interp.config import Config
from interp.files import write_text
from interp.run.origin import kind_of_model, origin_sentences
from interp.run.run import Run
from interp.seeds import number_of

README = "README.md"
_MARK = "<!-- Written by interp. -->\n"
"""The first line of ours: a file of the user's own is neither replaced nor deleted."""

_FILES = {
    "config.yaml": "the settings",
    "environment.json": "versions, device, precision and threads; other runs that took part",
    "metrics.jsonl": "everything measured, an observation a line",
    "checkpoints/": "the weights at some steps (safetensors)",
    "tokenizer/": "the tokenizer (transformers)",
    "finished.json": "the last step, why it was the last, and digests of the text files",
}
_MAYBE = {
    "key/": "what each head, neuron and direction is for",
    "adapters/": "the adapter at checkpoints of stages that train it (peft)",
    f"{PEOPLE_FILE}, {TEMPLATES_FILE}": "the people and their wordings",
}
_LATER = {
    "results/": "tables of measures, a folder a stage (`interp reproduce`)",
    "report.html, summary.json": "the page of the run, and its numbers",
}


def write_readme(run: Run) -> None:
    """Writes the README.md of a run that has been made, unless the user's own file is there.

    Raises:
        StorageError: it cannot be written.
    """
    path = run.path / README
    if _ours(path) or not path.exists():
        write_text(path, readme(run.config, run.environment, run.steps[-1]))


def remove_readme(folder: Path) -> None:
    """Deletes the README.md of a run, if it is ours."""
    path = folder / README
    if _ours(path):
        path.unlink()


def readme(config: Config, environment: dict[str, object], last_step: int) -> str:
    """The text.

    Args:
        config: The run's settings.
        environment: What `environment.json` records.
        last_step: The step of the last checkpoint.
    """
    version = str(environment.get("interp", "unknown"))
    files = _FILES | {name: _MAYBE[name] for name in _optional(config)} | _LATER
    made = {"merged": "merged", "compiled": "compiled"}.get(config.untrained or "", "trained")
    return "\n".join(
        [
            f"{_MARK}# A {made} run of interp: preset {config.preset}, seed {config.seed}",
            "",
            *_what_it_is(config, environment, last_step),
            "",
            "## How it was made",
            "",
            _how(config, version),
            "",
            "## How to open it",
            "",
            "```python",
            "import interp",
            'run = interp.Run.load(".")  # this folder',
            "model = run.model()  # the last checkpoint: a TransformerBridge with all its hooks",
            "```",
            "",
            "A page with figures: `interp report .` Who is in it: `interp people .`",
            "",
            "## Files",
            "",
            *(f"- `{name.replace(', ', '`, `')}`: {what}" for name, what in files.items()),
            "",
            "## How to cite",
            "",
            f"The interp authors, *interp*, version {version}; and the paper whose findings it reproduces: "
            "Zucchet et al., *How do language models learn facts? Dynamics, curricula and hallucinations*, "
            "2025, arXiv:2503.21676.",
            "",
        ]
    )


def _optional(config: Config) -> list[str]:
    key, adapters, people = _MAYBE
    there = ((key, config.compiled.on), (adapters, config.adapter.on))
    named = [name for name, is_there in there if is_there]
    return [*named, people] if config.population.people else named


def _what_it_is(config: Config, environment: dict[str, object], last_step: int) -> list[str]:
    model, people = config.model, config.population
    counts = environment.get("parameters")
    size = f", {counts['total']:,} parameters" if isinstance(counts, dict) else ""
    shape = (
        f"{number_of(model.n_layers, 'layer')}, d_model {model.d_model}, "
        + (f"{number_of(model.n_heads, 'head')}, " if model.recurrence is None else "")
        + f"d_mlp {model.d_mlp}{size}"
    )
    held_out = f", and {people.n_held_out:,} more who were held out" if people.n_held_out else ""
    whom = f"{number_of(people.n_individuals, 'person', 'people')}{held_out}"
    if config.compiled.on:
        made = f"Its weights were computed from them and not trained ({config.compiled.variant} memory)."
    elif config.merging.on:
        made = f"Its one checkpoint is at step {last_step:,}."
    else:
        made = f"Trained for {last_step:,} steps of {config.training.batch_size:,} texts."
    about = [f"{kind_of_model(config)} ({shape}) and the biographies of {whom}. {made}"]
    return [*about, *(f"\n{sentence}" for sentence in origin_sentences(config, environment))]


def _how(config: Config, version: str) -> str:
    if config.merging.on:
        return (
            f"With interp {version}, by `interp merge` (`interp.merge`, `interp.save_merged`) of the runs "
            "above; the factors, and digests of the weights, stand in `config.yaml` and `environment.json`."
        )
    command = f"interp train {config.preset} --config config.yaml --out ANOTHER"
    if (compiled := config.compiled).variant is not None:
        flags = "".join(
            f" --{name} {value}"
            for name, value in (("n-neurons", compiled.n_neurons), ("d-code", compiled.d_code))
            if value is not None
        )
        controls = f" --controls {' '.join(compiled.controls)}" if compiled.controls else ""
        memory = f"--variant {compiled.variant}{flags}{controls}"
        command = f"interp compile {config.preset} {memory} --out ANOTHER"
        return (
            f"With interp {version}, from the people of `config.yaml`, as by\n\n```sh\n{command}\n```\n\n"
            "with the settings of `population` and the seed that differ from the preset's."
        )
    near = (
        "\n\nOther runs that it names are looked for where `config.yaml` says."
        if config.finetuning.on or (config.patching.on and not config.patching.own)
        else ""
    )
    return (
        f"With interp {version}. The same settings give the same run, to the byte on the same machine with "
        f"the versions and threads of `environment.json`:\n\n```sh\n{command}\n```{near}"
    )


def _ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except OSError:
        return False
