"""A merged model as a run on disk: all instruments work on it."""

from pathlib import Path
from typing import Any, cast

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import save_tokenizer
from interp.ending import write_ending
from interp.errors import ArgumentError, RunError
from interp.files import folder_lock, place_to_write, remove_parts, write_json, write_text
from interp.knowledge import measure
from interp.merging.combine import Part, recipe_of
from interp.merging.line import splits_of
from interp.model import parameter_counts
from interp.run import MetricsWriter, Run, describe_environment, write_checkpoint
from interp.run.kept import kept_files
from interp.run.layout import RUN, keep_people
from interp.run.other_run import describe_checkpoint
from interp.run.readme import write_readme
from interp.torch_state import default_state
from interp.training.folder import find_run, open_folder

_ROLES = ("reference", "base")


@default_state()
def save_merged(model: TransformerBridge, out: Path | str, *, overwrite: bool = False) -> Run:
    """Writes a merged model as a run of one checkpoint, which is measured as in training.

    Settings, people and tokenizer are those of the run that was given first, and the checkpoint is at its
    step. `merging` in the settings and `merged` in `environment.json` say what the weights were made of:
    of each run the folder, step, fingerprint of its settings, SHA-256 of its checkpoint and of its weights,
    and the factor. Such a run is analysed as any other, and fine-tuning can start from it; it cannot be
    trained on under its own settings.

    Args:
        model: What `merge` or `TaskVector.apply` returned, of runs.
        out: A new folder.
        overwrite: Delete the run in `out` first.

    Returns:
        The run.

    Raises:
        ArgumentError: the model was not merged, of models that are no runs, or has been changed since.
        RunError: the folder holds a run already, one that took part, or something else.
    """
    recipe = recipe_of(model)
    first, step = recipe.like, recipe.step
    unknown = [part.name for part in recipe.parts if part.run is None]
    if first is None or step is None or unknown:
        raise ArgumentError(
            f"{unknown[0] if unknown else 'The first model'} is no run on disk, so no run can be made of "
            "what was merged. Give runs, or save the model's state_dict yourself."
        )
    out = place_to_write(out)
    for taken in (first, *(part.run for part in recipe.parts if part.run is not None)):
        if taken.path.resolve() in (out.resolve(), *out.resolve().parents):
            raise RunError(
                f"{out} is one of the runs that were merged, or in it. Choose another folder."
            )
    config = first.config.with_settings(
        **{
            "merging.of": [part.digest for part in recipe.parts],
            "merging.factors": [part.factor for part in recipe.parts],
        }
    )
    merged = [_described(part) for part in recipe.parts]
    find_run(config, out, resume=False, overwrite=overwrite)  # raises before anything is written
    with folder_lock(out):
        run = open_folder(config, out, resume=False, overwrite=overwrite)
        remove_parts(out, RUN)
        _write(run, model, first, step, merged)
    return Run.load(run.given)


def _described(part: Part) -> dict[str, Any]:
    """What `environment.json` records of a run whose weights were merged."""
    assert part.run is not None
    assert part.step is not None
    about = {"run": str(part.run.given), "factor": part.factor, "weights": part.digest}
    return about | describe_checkpoint(part.run, part.step)


def _write(
    run: Run, model: TransformerBridge, first: Run, step: int, merged: list[dict[str, Any]]
) -> None:
    corpus = first.corpus
    environment = describe_environment(torch.device("cpu"), "fp32")
    environment |= {name: first.environment[name] for name in _ROLES if name in first.environment}
    environment["parameters"] = parameter_counts(model)
    environment["population"] = corpus.population.fingerprint()
    environment["merged"] = merged
    save_tokenizer(corpus.tokenizer, run.tokenizer_path)
    keep_people(run.path, corpus.population)
    write_json(run.path / "environment.json", environment)
    write_text(run.metrics_path, "")
    write_checkpoint(run.path, step, model, run.config)
    metrics = MetricsWriter(run.metrics_path)
    if (
        run.config.sampling.kind == "adaptive"
    ):  # how many people had been shown: the corpus needs it
        shown = first.metrics.query("split == 'shown' and step <= @step")
        metrics.add(cast(Any, shown.to_dict("records")))
    people = run.config.evaluation.n_individuals
    with first.patched(model, step):
        for split in splits_of(corpus, run.config.evaluation.splits, people):
            table = measure(model, corpus, split, people).assign(step=step)
            metrics.add(cast(Any, table.to_dict("records")))
    metrics.flush()
    write_readme(run)
    write_ending(run.path, {"step": step, "reason": "merged"}, kept_files(run.path))
