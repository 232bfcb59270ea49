"""What a stage of training trains: the model's own weights, or an adapter beside them."""

from pathlib import Path

from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from interp.config import Config
from interp.errors import CheckpointError
from interp.model.adapters import Adapter, LoraSpec, attach_adapter
from interp.run.adapters import adapter_folder

_PREFIX = "adapter."


class TrainedWeights:
    """The parameters that are trained, by name; in stages that train the adapter those of the adapter.

    While an adapter is trained the model computes with it, and its own weights stay as they are. In
    stages that train the model's own weights the adapter is not on the model; it is kept as it was.

    Args:
        model: The model.
        config: The run's settings.
    """

    def __init__(self, model: TransformerBridge, config: Config) -> None:
        self._model = model
        self._config = config
        self._kept: dict[str, Tensor] = {}
        self.adapter: Adapter | None = None

    def begin(self, step: int) -> bool:
        """Makes the weights of a step's stage the trained ones; whether they are others than before."""
        stage = self._config.data.stage_at(step)
        wanted = stage is not None and stage.weights == "adapter"
        if wanted == (self.adapter is not None):
            return False
        if not wanted:
            self._kept = self.tensors()
            assert self.adapter is not None
            self.adapter.detach()
            self.adapter = None
            return True
        self.adapter = attach_adapter(self._model, lora_spec(self._config))
        if self._kept:
            self.adapter.load_tensors(self._unprefixed(self._kept))
        return True

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        if self.adapter is None:
            return dict(self._model.named_parameters())
        names = (f"{_PREFIX}{name}" for name in self.adapter.named_tensors())
        return dict(zip(names, self.adapter.parameters(), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """The adapter as it is, or was when it was last trained; nothing before."""
        if self.adapter is None:
            return self._kept
        return {f"{_PREFIX}{n}": t.clone() for n, t in self.adapter.named_tensors().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            CheckpointError: they are not those of the run's adapter.
        """
        if self.adapter is None:
            self._kept = tensors
            return
        try:
            self.adapter.load_tensors(self._unprefixed(tensors))
        except ValueError as error:
            raise CheckpointError(str(error)) from None

    def save(self, run: Path, step: int) -> None:
        """Writes the adapter beside the checkpoint of a step, where the adapter is what is trained."""
        if self.adapter is not None:
            self.adapter.save(adapter_folder(run, step))

    @staticmethod
    def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}


def is_adapter_tensor(name: str) -> bool:
    """Whether a tensor of a training state belongs to the adapter."""
    return name.startswith(_PREFIX)


def lora_spec(config: Config) -> LoraSpec:
    """The adapter that a run's settings ask for."""
    adapter = config.adapter
    assert adapter.rank is not None
    alpha = 2.0 * adapter.rank if adapter.alpha is None else adapter.alpha
    seed = config.seed_of("model")
    return LoraSpec(rank=adapter.rank, alpha=alpha, sites=adapter.sites, seed=seed)
