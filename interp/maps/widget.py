"""The attention view as a Jupyter widget: any person of a run, read from its checkpoints on demand."""

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex

import torch

from interp.errors import ArgumentError, InterpError, RunError
from interp.maps.record import MapRecord, map_steps, map_text, record_maps
from interp.maps.view import asset, view_settings, view_text, words_of
from interp.run import Run

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise InterpError(
        f"The attention browser needs the package {error.name!r}. Install the extra for notebooks: "
        "pip install 'interp[notebooks]'"
    ) from error


_N_KEPT = 8
"""People whose maps the kernel keeps; the view keeps all that it was sent."""


class AttentionBrowser(anywidget.AnyWidget):
    """Browses the attention of a run by person, checkpoint, layer and head; see `explore`.

    Attributes:
        state: What is shown: `person` (their number), `step`, `head` ("LAYER.HEAD" or "LAYER.mean"),
            `token` (a position) and `compare` (a step, or None). It follows what is done in the
            browser; setting it moves the view (see `show`).
    """

    _esm = asset("attention.js") + asset("widget.js")
    _css = asset("attention.css")
    settings = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        run: Run,
        person: SupportsIndex | str = 0,
        steps: Sequence[int] | None = None,
        wordings: str = "evaluation",
        draw: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._run, self._wordings, self._draw, self._device = run, wordings, draw, device
        self._words: list[int] = []
        self._records: dict[int, MapRecord] = {}
        text = map_text(run, run.population.individual(person), wordings, draw)
        if not run.steps:
            raise RunError(f"{run.path} has no checkpoint yet; train it with --resume.")
        self._steps = list(steps) if steps is not None else map_steps(run, [text])
        record = self._record(text.individual)
        self._steps = list(record.steps)
        settings = view_settings(run, self._steps, [record], self._words)
        super().__init__(settings=settings, state={})
        self.on_msg(self._answer)

    def show(
        self,
        person: SupportsIndex | str | None = None,
        step: int | None = None,
        head: str | None = None,
        token: int | None = None,
        compare: int | Literal["off"] | None = None,
    ) -> None:
        """Moves the view; what is not given stays as it is.

        Args:
            person: A number or a full name.
            step: A checkpoint; the nearest one is shown.
            head: "LAYER.HEAD", e.g. "1.2", or "LAYER.mean".
            token: Position of the token to choose; for another person, by default the one that predicts
                the university.
            compare: A second checkpoint, beside the first; "off" shows one alone.

        Raises:
            ArgumentError: there is no such individual or head, or a step or token below 0.
            RunError: nobody has that name.
        """
        for name, value in (("step", step), ("token", token), ("compare", compare)):
            if isinstance(value, int) and value < 0:
                raise ArgumentError(f"{name}={value}: {name}s are numbered from 0.")
        change: dict[str, Any] = {
            "person": None if person is None else self._run.population.individual(person),
            "step": step,
            "head": None if head is None else _require_head(self._run, head),
            "token": token,
            "compare": compare,
        }
        given = {name: value for name, value in change.items() if value is not None}
        kept = dict(self.state)
        if person is not None:
            kept.pop("token", None)
        if compare == "off":
            given["compare"] = None
        self.state = kept | given

    def _record(self, individual: int) -> MapRecord:
        if individual not in self._records:
            text = map_text(self._run, individual, self._wordings, self._draw)
            record = record_maps(self._run, [text], self._steps, self._device)[0]
            if len(self._records) == _N_KEPT:
                del self._records[next(iter(self._records))]
            self._records[individual] = record
            self._words = words_of([record], self._words)
        return self._records[individual]

    def _answer(self, _: object, content: dict[str, Any], buffers: list[Any]) -> None:
        """Sends the maps of a person that the view asks for, or says why not."""
        number = content.get("question")
        try:
            record = self._record(self._run.population.individual(content["person"]))
        except Exception as error:  # whatever it is, the view must not wait for ever
            self.send({"question": number, "error": str(error)})
            if not isinstance(error, InterpError):
                raise
            return
        packed = record.packed(self._words)
        words = self._run.tokenizer.convert_ids_to_tokens(self._words)
        text = view_text(self._run, record.text)
        answer = {"question": number, "text": text, "words": words, "keys": list(packed)}
        self.send(answer, list(packed.values()))


def explore(
    run: Run,
    person: SupportsIndex | str = 0,
    step: int | None = None,
    head: str | None = None,
    token: int | None = None,
    compare: int | None = None,
    *,
    steps: Sequence[int] | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    device: torch.device | str = "cpu",
) -> AttentionBrowser:
    """A widget to browse a run's attention by person, checkpoint, layer and head.

    The same view as in the report, for everybody in the population: choose or look up a person, move
    through training (slider, arrow keys, play), choose a head, hover over a token to see what it
    attends to and what attends to it, compare two checkpoints.

    Args:
        run: The run.
        person: Whom to begin with: a number or a full name; held-out people are allowed.
        step: The checkpoint to begin with; the last by default.
        head: "LAYER.HEAD" or "LAYER.mean"; by default the head of the last layer that at the last
            checkpoint looks most at names, where the university is predicted.
        token: Position of the token to begin with; by default the one that predicts the university.
        compare: A second checkpoint to show beside the first.
        steps: The checkpoints on the slider; by default all, or as many as fit (see `map_steps`).
        wordings: "evaluation" for sentences never seen with a person, "train" for those of training.
        draw: Another number gives other sentences in another order, the same order for everybody.
        device: Where to compute.

    Raises:
        ArgumentError: there is no such individual, head or wordings, or no step is named.
        CheckpointError: there is no checkpoint at a step.
        RunError: nobody has that name, or the run has no checkpoint.
        InterpError: the packages for notebooks are not installed.

    Example:
        ```python
        view = interp.explore(run, "Wim Mireia Vasiliev", step=300, compare=1500)
        view.show(head="1.2")
        ```
    """
    view = AttentionBrowser(run, person, steps, wordings, draw, device)
    view.show(step=step, head=head, token=token, compare=compare)
    return view


def _require_head(run: Run, head: str) -> str:
    model = run.config.model
    layer, _, number = str(head).partition(".")
    known = layer.isdecimal() and int(layer) < model.n_layers
    if not known or not (number == "mean" or (number.isdecimal() and int(number) < model.n_heads)):
        raise ArgumentError(
            f"There is no head {head!r}. Give LAYER.HEAD or LAYER.mean: layers 0 to "
            f"{model.n_layers - 1}, heads 0 to {model.n_heads - 1}, e.g. '0.mean'."
        )
    return str(head)
