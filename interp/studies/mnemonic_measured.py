"""What runs on mnemonic phrases and prose know: in prose over training, in phrases, with their adapter."""

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from interp.asking import accuracy_by_form, answers
from interp.biographies import Corpus
from interp.interventions.swapped import swapped_people
from interp.memory.swap import swap_success
from interp.run import Run
from interp.run.adapters import adapter_steps

PROSE, MNEMONIC = "biography", "mnemonic"
_N_SWAPS = 256
_PLACES = (
    "every first name",
    "every middle name",
    "every last name",
    "every name",
    "predicts value",
)


def curves(run: Run) -> pd.DataFrame:
    """Knowledge in prose over training: `step`, `stage`, `prose_step`, `accuracy` and `loss`."""
    accuracy = run.curve("attribute_accuracy")
    loss = run.curve("attribute_loss")
    steps = accuracy.index.to_numpy()
    stages = run.config.data.stages or ()
    starts = np.array([stage.start for stage in stages])
    return pd.DataFrame(
        {
            "step": steps,
            # A state is the end of the stage that led to it.
            "stage": np.searchsorted(starts, np.maximum(steps - 1, 0), side="right") - 1,
            "prose_step": [prose_steps(run, int(step)) for step in steps],
            "accuracy": accuracy.to_numpy(),
            "loss": loss.to_numpy(),
        }
    )


def prose_steps(run: Run, step: int) -> float:
    """How many steps of prose a state has behind it; half of those of an even mixture."""
    data, seen = run.config.data, 0.0
    for stage in data.stages or ():
        until = min(step, data.stage_end(stage, step))
        weights = {form.form: form.weight for form in stage.forms}
        share = weights.get(PROSE, 0.0) / sum(weights.values())
        seen += share * max(0, until - stage.start)
    return seen


def recall(run: Run) -> pd.DataFrame:
    """What is answered at the end of the first stage and of training: `when`, `form`, `accuracy`, `loss`."""
    stages = run.config.data.stages or ()
    end = run.steps[-1]
    when = {"end": end}
    if len(stages) > 1:
        when = {"boundary": stages[1].start, "end": end}
    parts = [
        _asked(run.model(step), run.corpus, _forms(run)).assign(when=name)
        for name, step in when.items()
    ]
    return pd.concat(parts, ignore_index=True)


def adapters(run: Run) -> pd.DataFrame:
    """What is answered at the end with the last adapter on and off; no row without an adapter."""
    if not adapter_steps(run.path):
        return pd.DataFrame()
    parts = [
        _asked(
            run.model(adapter="merged" if use == "on" else "off"), run.corpus, _forms(run)
        ).assign(adapter=use)
        for use in ("on", "off")
    ]
    return pd.concat(parts, ignore_index=True)


def memory(run: Run) -> pd.DataFrame:
    """What carries a person's facts in prose: `layer`, `site`, `position`, `follows` and `control`."""
    pairs = swapped_people(run.corpus, n=_N_SWAPS)
    found = swap_success(run.model(), pairs, sites=("resid_post", "mlp_out"))
    found = found[found["position"].isin(_PLACES)]
    return found[["layer", "site", "position", "follows", "control"]]


def _forms(run: Run) -> list[str]:
    trained = [form.form for stage in run.config.data.stages or () for form in stage.forms]
    return list(dict.fromkeys([PROSE, MNEMONIC, *trained]))


def _asked(model: TransformerBridge, corpus: Corpus, forms: list[str]) -> pd.DataFrame:
    people = slice(0, min(512, corpus.population.config.n_individuals))
    found = accuracy_by_form(answers(model, corpus, forms, people))
    found = found[found["attribute"] == "all"]
    return found[["form", "accuracy", "loss"]]
