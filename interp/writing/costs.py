"""What writing facts costs, in the units of `interp.training_costs`."""

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Arithmetic:
    """Tokens that passed through a model, padding included.

    Attributes:
        examples: Texts that something was learned from, counted at every step.
        forward_tokens: Tokens that passed forward.
        backward_tokens: Tokens that passed backward to the weights.
        activation_tokens: Tokens that passed backward to an activation only, with no gradient of weights.
    """

    examples: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0
    activation_tokens: int = 0

    @property
    def arithmetic(self) -> int:
        """In tokens passing forward: backward to weights counts as two, to an activation as one.

        Times two, and the parameters of the model, these are FLOPs. The solution of the equations, of some
        d_mlp³ FLOPs a layer, is not in it.
        """
        return self.forward_tokens + 2 * self.backward_tokens + self.activation_tokens

    def __add__(self, other: "Arithmetic") -> "Arithmetic":
        return Arithmetic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
