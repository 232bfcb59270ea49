"""Facts written into weights in closed form: one (ROME) and many at once (MEMIT), and how well they hold.

edit = interp.write_facts(run, [("Wim Mireia Vasiliev", "university", "Oxford")])
with edit.applied(model):                                # the new fact, and afterwards the same bytes
    ...
edit.save("oxford.safetensors")
interp.load_edit("oxford.safetensors").attach(model).undo()
interp.edit_scores(run, n_edits=(1, 4, 16, 64))          # efficacy, generalisation, specificity
"""

from interp.writing.edit import AttachedEdit, WeightEdit, weights_digest
from interp.writing.edit_files import load_edit
from interp.writing.effect import EditEffect, edit_effect
from interp.writing.rewrites import Places, Rewrite, Rewrites, rewritten
from interp.writing.scores import edit_scores
from interp.writing.targets import TargetSettings
from interp.writing.tuning import Tuned, finetuned_on
from interp.writing.write import write_facts

__all__ = [
    "AttachedEdit",
    "EditEffect",
    "Places",
    "Rewrite",
    "Rewrites",
    "TargetSettings",
    "Tuned",
    "WeightEdit",
    "edit_effect",
    "edit_scores",
    "finetuned_on",
    "load_edit",
    "rewritten",
    "weights_digest",
    "write_facts",
]
