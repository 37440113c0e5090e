"""Which channels each dimension of each parameter and buffer runs over, read off the graph.

A *channel space* is a set of channels that must be cut alike. Tracing with :mod:`torch.fx`, never
layer names, decides them: a convolution or linear layer makes a new space, norms, activations and
pooling keep it, a residual addition unifies its two operands' spaces, and flattening turns each
channel into a contiguous run of features. Image channels and classes are fixed: never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from benchmark.errors import UserError
from benchmark.models.tracing import Tracing

Kind = Literal["conv", "linear", "affine", "mean", "variance", "counter"]


@dataclass(frozen=True)
class Axis:
    """What one dimension of a tensor runs over.

    Parameters
    ----------
    layer : int
        Index into :attr:`Structure.layers`: the layer whose output channels these are.
    repeat : int
        Contiguous features per channel: above 1 behind a flatten of maps.
    """

    layer: int
    repeat: int = 1


@dataclass(frozen=True)
class Entry:
    """The channel axes of one state-dict entry.

    Parameters
    ----------
    kind : str
        ``conv`` and ``linear`` weights; ``affine`` for biases and the scales of norms; running
        ``mean`` and ``variance``; ``counter`` for integer scalars.
    out_axis : Axis or None
        Dimension 0; None for counters.
    in_axis : Axis or None
        Dimension 1; None for everything but weights of convolutions and linear layers.
    """

    kind: Kind
    out_axis: Axis | None
    in_axis: Axis | None = None


@dataclass(frozen=True)
class Layer:
    """One producer of channels.

    Parameters
    ----------
    space : int
        The channel space; layers joined by a residual addition share one.
    size : int
        Number of channels at full width.
    fixed : bool
        Whether narrower models keep all of it (image channels, classes).
    """

    space: int
    size: int
    fixed: bool


@dataclass(frozen=True)
class Structure:
    """Channel spaces of a model.

    Parameters
    ----------
    entries : dict of str to Entry
        One per state-dict entry, in its order.
    layers : tuple of Layer
        Layer 0 is the image. A projection shortcut counts as part of the layer that it is added to.
    head : tuple of str
        Names of the final linear layer's weight and, if it has one, bias.
    """

    entries: dict[str, Entry]
    layers: tuple[Layer, ...]
    head: tuple[str, ...]

    @property
    def spaces(self) -> dict[int, int]:
        """Size of every space that can be cut, by space, in order of first use."""
        return {layer.space: layer.size for layer in self.layers if not layer.fixed}

    def is_head(self, name: str) -> bool:
        """Whether an entry's rows are classes of the final linear layer."""
        return name in self.head


def find_structure(model: nn.Module) -> Structure:
    """Find the channel spaces of a model.

    Parameters
    ----------
    model : nn.Module
        Maps images [B, C, H, W] to logits [B, classes], ending in a linear layer. Any device, the
        meta device included; it is neither run nor changed.

    Returns
    -------
    Structure
        Spaces of every state-dict entry.

    Raises
    ------
    UserError
        If the model's graph cannot be traced or holds an operation whose effect on channels is
        unknown (all timm models): such a model can be used at width 1 only.
    """
    if not getattr(model, "scalable", True):
        raise _not_understood(model, "its family has no narrower versions")
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise _not_understood(model, f"it cannot be traced ({error})") from error
    tracing = Tracing(model, graph)
    try:
        tracing.run()
    except ValueError as error:
        raise _not_understood(model, str(error)) from error
    return _summarise(model, tracing)


def _not_understood(model: nn.Module, reason: str) -> UserError:
    name = type(model).__name__
    line = " ".join(reason.split())
    return UserError(f"{name} can't be cut into narrower models, use it at width 1: {line}")


def _summarise(model: nn.Module, tracing: Tracing) -> Structure:
    layer_ids, spaces = tracing.numbering()
    layers: list[Layer] = []
    for layer, (size, fixed) in zip(layer_ids, tracing.layer_facts(layer_ids), strict=True):
        layers.append(Layer(spaces[layer], size, fixed))
    position = {layer: index for index, layer in enumerate(layer_ids)}
    entries: dict[str, Entry] = {}
    for name, tensor in model.state_dict().items():
        prefix, _, field = name.rpartition(".")
        if prefix not in tracing.axes:
            raise _not_understood(model, f"entry {name!r} plays no part in its forward pass")
        entries[name] = _entry(field, tensor.dim(), tracing, prefix, position.__getitem__)
    head = tuple(name for name in entries if name.rpartition(".")[0] == tracing.head)
    return Structure(entries, tuple(layers), head)


def _entry(
    field: str, dims: int, tracing: Tracing, prefix: str, position: Callable[[int], int]
) -> Entry:
    if dims == 0:
        return Entry("counter", None)
    (out_layer, out_repeat), (in_layer, in_repeat) = tracing.axes[prefix]
    out_axis = Axis(position(tracing.draw(out_layer)), out_repeat)
    if dims == 1:
        kinds: dict[str, Kind] = {"running_mean": "mean", "running_var": "variance"}
        return Entry(kinds.get(field, "affine"), out_axis)
    kind: Kind = "conv" if dims > 2 else "linear"
    return Entry(kind, out_axis, Axis(position(tracing.draw(in_layer)), in_repeat))
