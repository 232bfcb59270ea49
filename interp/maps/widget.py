"""The attention view as a Jupyter widget: texts of a series of models, read on demand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, SupportsIndex

import torch

from interp.biographies import Batch, Texts
from interp.biographies.forms import BIOGRAPHY
from interp.errors import ArgumentError, InterpError
from interp.maps.people import HasCorpus
from interp.maps.record import MapRecord, map_steps, record_maps
from interp.maps.sources import GivenTexts, People, TextSource
from interp.maps.texts import MapText, Vocabulary, label_texts, words_by_id
from interp.maps.training import TrainingInfo
from interp.maps.view import asset, view_settings, view_text, words_of
from interp.series import AnySeries, Checkpoints, Device, as_series, models_at, steps_of, texts_of

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise InterpError(
        f"The attention browser needs the package {error.name!r}. Install the extra for notebooks: "
        "pip install 'interp[notebooks]'"
    ) from error


_N_KEPT = 8
"""Texts whose maps the kernel keeps; the view keeps all that it was sent."""
_N_MATCHES = 60
"""Matches of a name that the view offers to choose from."""

BrowsedTexts = Texts | Batch | Sequence[MapText]
"""Texts to browse: token ids with spans, or such texts with labels (`interp.maps.label_texts`)."""


class AttentionBrowser(anywidget.AnyWidget):
    """Browses the attention of a series by text, checkpoint, layer and head; see `explore`.

    Attributes:
        state: What is shown: `person` (the number of a person or text), `step`, `head` ("LAYER.HEAD" or
            "LAYER.mean"), `token` (a position) and `compare` (a step, or None). It follows what is done
            in the browser; setting it moves the view (see `show`).
        form: In which form of text people are shown; setting it, or choosing another in the menu, shows
            the same person in another form. Empty where texts were given.
    """

    _esm = asset("attention.js") + asset("widget.js")
    _css = asset("attention.css")
    settings = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    form = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        series: AnySeries,
        person: SupportsIndex | str = 0,
        steps: Sequence[int] | None = None,
        wordings: str = "evaluation",
        draw: int = 0,
        device: Device = None,
        texts: BrowsedTexts | None = None,
        vocabulary: Vocabulary | None = None,
        form: str = BIOGRAPHY,
    ) -> None:
        series = as_series(series)
        self._series, self._device = series, device
        self._vocabulary = _vocabulary(series) if vocabulary is None else vocabulary
        self._source = _source(series, texts, self._vocabulary, wordings, draw, form)
        self._words: list[int] = []
        self._records: dict[int, MapRecord] = {}
        first = self._source.number(person)
        if steps is None:
            steps = map_steps(series, [self._source.longest(first)], device=device)
        self._steps = list(steps)
        self._steps = list(self._record(first).steps)
        self._begun, shown, self._forms = first, "", []
        if isinstance(self._source, People):
            (_, model), *_ = models_at(series, self._steps[:1])
            shown, self._forms = self._source.form, self._source.forms(first, model.cfg.n_ctx)
        super().__init__(settings=self._settings(first), state={}, form=shown)
        self.observe(self._choose, "form")
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
            person: A number or a name; of texts that were given, their number is their place.
            step: A checkpoint; the nearest one is shown.
            head: "LAYER.HEAD", e.g. "1.2", or "LAYER.mean".
            token: Position of the token to choose; for another text, by default the one that predicts
                the university, or else the first value.
            compare: A second checkpoint, beside the first; "off" shows one alone.

        Raises:
            ArgumentError: there is no such individual, text or head, or a step or token below 0.
            RunError: nobody has that name.
        """
        for name, value in (("step", step), ("token", token), ("compare", compare)):
            if isinstance(value, int) and value < 0:
                raise ArgumentError(f"{name}={value}: {name}s are numbered from 0.")
        state = dict(self.state)
        if person is not None:
            state["person"] = self._source.number(person)
            state.pop("token", None)
        if head is not None:
            state["head"] = self._require_head(head)
        state |= {n: v for n, v in (("step", step), ("token", token)) if v is not None}
        if compare is not None:
            state["compare"] = None if compare == "off" else compare
        self.state = state

    def _settings(self, first: int) -> dict[str, Any]:
        """What the view begins with: one text, of those that it can ask for."""
        source, record = self._source, self._record(first)
        listed = source.listed()
        training = TrainingInfo.of(self._series)
        found = view_settings([record], self._words, self._vocabulary, training, listed)
        if not isinstance(source, People):
            return found | {"begin": first}  # the first text of the list unless it is told another
        forms = {"forms": self._forms, "form": source.form} if self._forms[1:] else {}
        return found | {"search": True} | forms

    def _choose(self, change: Any) -> None:
        """Shows the same person in another form, or says why not."""
        source, records, words = self._source, self._records, self._words
        if change["new"] == (source.form if isinstance(source, People) else ""):
            return
        try:
            if not isinstance(source, People):
                raise ArgumentError("Texts that were given have no other form.")
            self._source = replace(source, form=change["new"])
            self._records, self._words = {}, []
            state = {name: of for name, of in self.state.items() if name != "token"}
            settings = self._settings(self._source.number(state.get("person", self._begun)))
        except InterpError as error:
            self._source, self._records, self._words = source, records, words
            self.form = change["old"]
            self.send({"refused": str(error)})
            return
        with self.hold_sync():
            self.state, self.settings = state, settings

    def _record(self, number: int) -> MapRecord:
        if number not in self._records:
            text = self._source.text(number)
            record = record_maps(self._series, [text], self._steps, self._device)[0]
            if len(self._records) == _N_KEPT:
                del self._records[next(iter(self._records))]
            self._records[number] = record
            self._words = words_of([record], self._words)
        return self._records[number]

    def _answer(self, _: object, content: dict[str, Any], buffers: list[Any]) -> None:
        """Sends the maps of a text that the view asks for, or whom its name can mean, or says why not."""
        number = content.get("question")
        try:
            asked = content["person"]
            matches = self._source.matches(asked)
            if len(matches) > 1:
                self.send({"question": number, **to_choose(asked, matches)})
                return
            record = self._record(self._source.number(asked))
        except Exception as error:  # whatever it is, the view must not wait for ever
            self.send({"question": number, "error": str(error)})
            if not isinstance(error, InterpError):
                raise
            return
        packed = record.packed(self._words)
        words = words_by_id(self._vocabulary, self._words)
        text = view_text(record.text)
        answer = {"question": number, "text": text, "words": words, "keys": list(packed)}
        self.send(answer, list(packed.values()))

    def _require_head(self, head: str) -> str:
        n_layers, n_heads = self.settings["n_layers"], self.settings["n_heads"]
        layer, _, number = str(head).partition(".")
        known = layer.isdecimal() and int(layer) < n_layers
        if not known or not (number == "mean" or (number.isdecimal() and int(number) < n_heads)):
            raise ArgumentError(
                f"There is no head {head!r}. Give LAYER.HEAD or LAYER.mean: layers 0 to "
                f"{n_layers - 1}, heads 0 to {n_heads - 1}, e.g. '0.mean'."
            )
        return str(head)


def explore(
    series: AnySeries,
    person: SupportsIndex | str = 0,
    step: int | None = None,
    head: str | None = None,
    token: int | None = None,
    compare: int | None = None,
    *,
    steps: Sequence[int] | None = None,
    wordings: str = "evaluation",
    draw: int = 0,
    device: torch.device | str | None = None,
    texts: BrowsedTexts | None = None,
    vocabulary: Vocabulary | None = None,
    form: str = BIOGRAPHY,
) -> AttentionBrowser:
    """A widget to browse attention by text, checkpoint, layer and head.

    The same view as in the report: choose or look up a text, move through training (slider, arrow keys,
    play), choose a head, hover over a token to see what it attends to and what attends to it, compare
    two checkpoints. A run alone shows a biography of everybody in the population.

    Args:
        series: A run, models by step (`{0: model, 100: model}`), or another series (see
            `interp.series`).
        person: Whom to begin with, as in `AttentionBrowser.show`; held-out people are allowed.
        step: The checkpoint to begin with; the last by default.
        head: "LAYER.HEAD" or "LAYER.mean"; by default the head of the last layer that at the last
            checkpoint looks most at names, where the first token is chosen.
        token: Position of the token to begin with, as in `AttentionBrowser.show`.
        compare: A second checkpoint to show beside the first.
        steps: The checkpoints on the slider; by default all, or as many as fit (see `map_steps`).
        wordings: Of a run's biographies, as in `Corpus.biographies`.
        draw: The same; everybody's sentences come in the same order.
        device: Where to compute; where the models are by default, those of a run on the CPU.
        texts: Texts to browse in place of a run's biographies: token ids with their spans, or such texts
            with names and relations of yours (`interp.maps.label_texts`).
        vocabulary: A tokenizer, or the words in the order of their ids; by default the tokenizer of the
            run, or of the first model.
        form: In which form a run's people are shown, one of `interp.biographies.FORMS` that its tokenizer
            knows: "question", "mnemonic", ...

    Raises:
        ConfigError: there is no such form, or the tokenizer does not know its words.
        ArgumentError: there is no such individual, text, head or wordings, no step is named, a series
            that is no run comes without texts or without words for their tokens, or a text does not fit
            a model.
        CheckpointError: there is no checkpoint at a step.
        RunError: nobody has that name, or there is no checkpoint.
        InterpError: the packages for notebooks are not installed.

    Example:
        ```python
        view = interp.explore(run, "Wim Mireia Vasiliev", step=300, compare=1500)
        view.show(head="1.2")

        spans = interp.Spans.from_lists(6, sentences=[(1, 6)], names=[(1, 3)], values=[(5, 6)])
        texts = interp.Texts(torch.tensor([[0, 17, 4, 9, 12, 33]]), spans)
        interp.explore({0: early, 1000: late}, texts=texts)
        ```
    """
    view = AttentionBrowser(series, person, steps, wordings, draw, device, texts, vocabulary, form)
    view.show(step=step, head=head, token=token, compare=compare)
    return view


def to_choose(name: str, matches: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Whom a name can mean, as the view is told it."""
    n_more = len(matches) - _N_MATCHES
    how = (
        f"Give more of the name, or choose among the first {_N_MATCHES}:"
        if n_more > 0
        else "Choose one:"
    )
    return {
        "error": f"{len(matches):,} have {name!r} in their name. {how}",
        "matches": [{"person": n, "name": full} for n, full in matches[:_N_MATCHES]],
    }


def _source(
    series: Checkpoints,
    texts: BrowsedTexts | None,
    vocabulary: Vocabulary,
    wordings: str,
    draw: int,
    form: str,
) -> TextSource:
    if texts is None and isinstance(series, HasCorpus):
        return People(series.corpus, wordings, draw, form)
    if (wordings, draw, form) != ("evaluation", 0, BIOGRAPHY):
        raise ArgumentError(
            f"wordings={wordings!r}, draw={draw} and form={form!r} are about a run's own texts. Leave them "
            "out with texts of yours."
        )
    if texts is None or isinstance(texts, Texts | Batch):
        chosen = texts_of(series, texts, "evaluation", None)
        return GivenTexts(label_texts(chosen, vocabulary))
    wrong = [text for text in texts if not isinstance(text, MapText)]
    if wrong:
        raise ArgumentError(
            f"A {type(wrong[0]).__name__} is no labelled text. Give interp.Texts(tokens, spans), or a list "
            "made by interp.maps.label_texts or interp.maps.map_text."
        )
    return GivenTexts(texts)


def _vocabulary(series: Checkpoints) -> Vocabulary:
    """The tokenizer of a run, or of the first model."""
    tokenizer: Vocabulary | None = getattr(series, "tokenizer", None)
    if tokenizer is None:
        for _, model in models_at(series, steps_of(series)[:1]):
            tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ArgumentError(
            "The models have no tokenizer, so their token ids have no words. Give vocabulary: a tokenizer, "
            "or a list of words in the order of their ids."
        )
    return tokenizer
