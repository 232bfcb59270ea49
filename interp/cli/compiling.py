"""Weights computed from people and wordings, as a run."""

from collections.abc import Callable
from pathlib import Path

from interp.cli.printing import note, say
from interp.cli.runs import Settings, SettingsFile
from interp.config import Config, Control, Variant


def compile_command(base: Config) -> Callable[..., None]:
    """`interp compile`, which starts from the settings of a preset."""

    def compile(
        config: Settings = base,
        *,
        out: Path,
        variant: Variant = "local",
        n_neurons: int | None = None,
        d_code: int | None = None,
        controls: tuple[Control, ...] = (),
        file: SettingsFile = None,
        overwrite: bool = False,
    ) -> None:
        """Compute the weights of a model that knows everybody, with no training, and write it as a run.

        OUT/key says what each head, neuron and direction is for. Geometric memory needs people of one word
        each.

        Example: interp compile tiny --out runs/compiled

        Example: interp compile tiny --out runs/own --population.people people.csv
            --population.templates templates.yaml --variant distributed

        Args:
            config: The settings; of the model, only model.n-ctx and the seed count.
            out: Folder of the run.
            variant: Where the facts are: a neuron a person, random features of names, or the embeddings.
            n_neurons: Random features (distributed only); by default twice as many as people.
            d_code: Dimensions of directions where there are more labels than that; 64 by default.
            controls: Things that are there and not read: head, direction, neurons.
            file: Settings in YAML, nested or by dotted name, on top of the preset; flags go on top of them.
            overwrite: Delete the run in that folder first.
        """
        from interp.compiled import compile_recall

        compiled = compile_recall(
            config, variant, n_neurons=n_neurons, controls=controls, d_code=d_code
        )
        run = compiled.save(out, overwrite=overwrite)
        say(repr(run), highlight=False)
        note(f"{run.given / 'key'} says what each head, neuron and direction is for.")

    return compile
