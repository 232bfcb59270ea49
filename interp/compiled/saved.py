"""A compiled model as a run on disk: all instruments work on it."""

from pathlib import Path
from typing import Any, cast

import torch
from transformer_lens.model_bridge import TransformerBridge

from interp.biographies import Corpus, save_tokenizer
from interp.compiled.key import Key
from interp.config import Config
from interp.ending import write_ending
from interp.files import folder_lock, place_to_write, remove_parts, write_json, write_text
from interp.knowledge import SPLITS, measure
from interp.model import parameter_counts
from interp.run import MetricsWriter, Run, describe_environment, write_checkpoint
from interp.run.kept import kept_files
from interp.run.layout import KEY, RUN, keep_people
from interp.run.readme import write_readme
from interp.torch_state import default_state
from interp.training.folder import find_run, open_folder

STEP = 0
"""The step of a compiled run's checkpoint."""


@default_state()
def save_compiled(
    config: Config,
    corpus: Corpus,
    model: TransformerBridge,
    key: Key,
    out: Path | str,
    overwrite: bool,
) -> Run:
    """See `CompiledRecall.save`."""
    out = place_to_write(out)
    find_run(config, out, resume=False, overwrite=overwrite)  # raises before anything is written
    with folder_lock(out):
        run = open_folder(config, out, resume=False, overwrite=overwrite)
        remove_parts(out, RUN)
        environment = describe_environment(torch.device("cpu"), "fp32")
        environment["parameters"] = parameter_counts(model)
        environment["population"] = corpus.population.fingerprint()
        save_tokenizer(corpus.tokenizer, run.tokenizer_path)
        keep_people(run.path, corpus.population)
        write_json(run.path / "environment.json", environment)
        write_text(run.metrics_path, "")
        write_checkpoint(run.path, STEP, model, run.config)
        key.write(run.path / KEY)
        metrics = MetricsWriter(run.metrics_path)
        n_people = config.evaluation.n_individuals
        for split in config.evaluation.splits or SPLITS:
            if split == "held_out" and not corpus.population.config.n_held_out:
                continue
            table = measure(model, corpus, split, n_people).assign(step=STEP)
            metrics.add(cast(Any, table.to_dict("records")))
        metrics.flush()
        write_readme(run)
        write_ending(run.path, {"step": STEP, "reason": "compiled"}, kept_files(run.path))
    return Run.load(run.given)
