"""Follow channels through a traced graph: the work behind :mod:`benchmark.models.structure`."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_KEEP_MODULES = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Upsample,
)
_NORM_MODULES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
_KEEP_FUNCTIONS = {
    F.relu,
    F.leaky_relu,
    F.elu,
    F.gelu,
    F.silu,
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
    F.interpolate,
    torch.relu,
    torch.tanh,
    torch.sigmoid,
}
_KEEP_METHODS = {"relu", "tanh", "sigmoid", "contiguous", "clone", "clamp"}
_ADDITIONS = {operator.add, operator.iadd, torch.add}
_SCALINGS = {operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.mul, torch.div}


@dataclass(frozen=True)
class Flow:
    """What is known of an activation.

    Parameters
    ----------
    layer : int
        The layer whose channels it carries.
    repeat : int
        Features per channel, once flattened with a known size; 0 when flattened and not yet known.
    flat : bool
        Whether it is [B, F] rather than [B, C, H, W].
    direct : bool
        Whether it comes straight from a convolution: only norms, activations and pooling between,
        each read by nothing else.
    """

    layer: int
    repeat: int = 1
    flat: bool = False
    direct: bool = False


class Tracing:
    """One pass over a graph, collecting layers, their unions and the axes of each module.

    Layers are numbered in the order met. Two relations are kept beside each other: *spaces*, which
    a residual addition unifies, and *draws*: a projection shortcut has the draw of the convolution
    it is added to, because the two write the same channels even if nothing else is aligned.

    Parameters
    ----------
    model : nn.Module
        The traced model.
    graph : torch.fx.Graph
        Its graph.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.axes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
        self.head = ""
        self._modules = dict(model.named_modules())
        self._order = {name: index for index, name in enumerate(self._modules)}
        self._graph = graph
        self._flows: dict[fx.Node, Flow] = {}
        self._sizes: list[int] = []
        self._fixed: set[int] = set()
        self._space: list[int] = []
        self._draw: list[int] = []
        self._maker: list[str] = []

    # -- unions ------------------------------------------------------------------------------

    def _root(self, layer: int) -> int:
        while self._space[layer] != layer:
            layer = self._space[layer]
        return layer

    def draw(self, layer: int) -> int:
        """Return the layer whose draw ``layer`` shares: itself, unless it is a projection."""
        while self._draw[layer] != layer:
            layer = self._draw[layer]
        return layer

    def _new_layer(self, size: int, maker: str) -> int:
        layer = len(self._sizes)
        self._sizes.append(size)
        self._space.append(layer)
        self._draw.append(layer)
        self._maker.append(maker)
        return layer

    def _unify(self, a: int, b: int) -> None:
        if self._sizes[a] != self._sizes[b]:
            raise ValueError(
                f"{self._sizes[a]} channels are added to {self._sizes[b]}, which no cut preserves"
            )
        first, second = sorted((self._root(a), self._root(b)))
        self._space[second] = first

    def numbering(self) -> tuple[list[int], dict[int, int]]:
        """Return the layers that have a draw of their own, and each one's space number."""
        layers = [layer for layer in range(len(self._sizes)) if self.draw(layer) == layer]
        roots: dict[int, int] = {}
        spaces = {layer: roots.setdefault(self._root(layer), len(roots)) for layer in layers}
        return layers, spaces

    def layer_facts(self, layers: list[int]) -> list[tuple[int, bool]]:
        """Return (size, fixed) of each of ``layers``; a space is fixed if any layer of it is."""
        fixed = {self._root(layer) for layer in self._fixed}
        return [(self._sizes[layer], self._root(layer) in fixed) for layer in layers]

    # -- the pass ----------------------------------------------------------------------------

    def run(self) -> None:
        """Follow the graph from image to logits.

        Raises
        ------
        ValueError
            If an operation's effect on channels is unknown; the message names it.
        """
        for node in self._graph.nodes:
            handler = getattr(self, f"_on_{node.op}")
            flow = handler(node)
            if flow is not None:
                self._flows[node] = flow

    def _input(self, node: fx.Node, index: int = 0) -> Flow:
        value = node.args[index] if len(node.args) > index else node.kwargs.get("input")
        if not isinstance(value, fx.Node) or value not in self._flows:
            raise ValueError(f"{self._label(node)} reads something that is not an activation")
        flow = self._flows[value]
        return Flow(flow.layer, flow.repeat, flow.flat, flow.direct and len(value.users) == 1)

    def _label(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self._modules[str(node.target)]).__name__} at {str(node.target)!r}"
        return f"operation {getattr(node.target, '__name__', node.target)!r}"

    def _unknown(self, node: fx.Node) -> ValueError:
        return ValueError(f"the effect of {self._label(node)} on channels is not known")

    def _on_placeholder(self, node: fx.Node) -> Flow | None:
        if self._flows:
            return None
        layer = self._new_layer(0, "")
        self._fixed.add(layer)
        return Flow(layer)

    def _on_get_attr(self, node: fx.Node) -> None:
        raise ValueError(f"it reads the tensor {node.target!r} outside a layer")

    def _on_output(self, node: fx.Node) -> None:
        flow = self._input(node)
        maker = self._maker[flow.layer]
        if not isinstance(self._modules[maker], nn.Linear) or not flow.flat:
            raise ValueError("it does not end in a linear layer")
        self.head = maker
        self._fixed.add(flow.layer)

    def _on_call_module(self, node: fx.Node) -> Flow:
        name = str(node.target)
        module = self._modules[name]
        flow = self._input(node)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if name in self.axes:
                raise ValueError(f"{self._label(node)} is used more than once")
            return self._weighted(node, name, module, flow)
        if isinstance(module, _NORM_MODULES):
            if name in self.axes and self.axes[name][0] != (flow.layer, flow.repeat):
                raise ValueError(f"{self._label(node)} is shared by different channels")
            if flow.flat and flow.repeat != 1:
                raise ValueError(f"{self._label(node)} follows a flatten")
            self.axes[name] = ((flow.layer, 1), (flow.layer, 1))
            return flow
        if isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise self._unknown(node)
            return self._flattened(flow)
        if isinstance(module, _KEEP_MODULES):
            return flow
        raise self._unknown(node)

    def _weighted(
        self, node: fx.Node, name: str, module: nn.Conv2d | nn.Linear, flow: Flow
    ) -> Flow:
        if isinstance(module, nn.Conv2d):
            if module.groups != 1 or flow.flat:
                raise self._unknown(node)
            size_in, size_out, repeat = module.in_channels, module.out_channels, 1
        else:
            if not flow.flat:
                raise ValueError(f"{self._label(node)} is applied to unflattened maps")
            size_in, size_out = module.in_features, module.out_features
            repeat = flow.repeat or size_in // max(1, self._sizes[flow.layer])
        if self._sizes[flow.layer] == 0:
            self._sizes[flow.layer] = size_in // repeat
        if self._sizes[flow.layer] * repeat != size_in:
            raise ValueError(
                f"{self._label(node)} reads {size_in} inputs that are not whole channels"
            )
        layer = self._new_layer(size_out, name)
        self.axes[name] = ((layer, 1), (flow.layer, repeat))
        return Flow(layer, flat=isinstance(module, nn.Linear), direct=True)

    def _on_call_function(self, node: fx.Node) -> Flow | None:
        if node.target in _ADDITIONS:
            return self._added(node)
        if node.target is torch.flatten and self._flattens(node):
            return self._flattened(self._input(node))
        if node.target is getattr or (
            node.target is operator.getitem and node.args[0] not in self._flows
        ):
            return None
        if node.target in _SCALINGS and self._by_number(node) is not None:
            return self._input(node, self._by_number(node) or 0)
        if node.target in _KEEP_FUNCTIONS:
            return self._input(node)
        if node.target is torch.mean:
            return self._mean(node)
        raise self._unknown(node)

    def _on_call_method(self, node: fx.Node) -> Flow | None:
        if node.target == "size":
            return None
        if node.target in _KEEP_METHODS:
            return self._input(node)
        if node.target == "mean":
            return self._mean(node)
        if node.target == "flatten" and self._flattens(node):
            return self._flattened(self._input(node))
        if node.target in {"view", "reshape"} and len(node.args) == 3 and node.args[2] == -1:
            return self._flattened(self._input(node))
        raise self._unknown(node)

    # -- single operations -------------------------------------------------------------------

    @staticmethod
    def _flattens(node: fx.Node) -> bool:
        names = ("start_dim", "end_dim")
        dims: list[Any] = [
            node.args[i + 1] if len(node.args) > i + 1 else node.kwargs.get(name, default)
            for i, (name, default) in enumerate(zip(names, (0, -1), strict=True))
        ]
        return dims == [1, -1]

    @staticmethod
    def _by_number(node: fx.Node) -> int | None:
        """Return the position of an operation's one activation if the other operand is a number."""
        found = [i for i, arg in enumerate(node.args[:2]) if isinstance(arg, fx.Node)]
        numbers = any(isinstance(arg, (int, float)) for arg in node.args[:2])
        return found[0] if len(found) == 1 and numbers else None

    @staticmethod
    def _flattened(flow: Flow) -> Flow:
        return flow if flow.flat else Flow(flow.layer, repeat=0, flat=True)

    def _mean(self, node: fx.Node) -> Flow:
        flow = self._input(node)
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if flow.flat or not isinstance(dims, (tuple, list)) or {d % 4 for d in dims} != {2, 3}:
            raise self._unknown(node)
        if node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2]):
            return flow
        return Flow(flow.layer, flat=True)

    def _added(self, node: fx.Node) -> Flow:
        position = self._by_number(node)
        if position is not None:
            return self._input(node, position)
        a, b = self._input(node, 0), self._input(node, 1)
        if (a.flat, a.repeat) != (b.flat, b.repeat):
            raise self._unknown(node)
        self._unify(a.layer, b.layer)
        if a.direct and b.direct:
            main, projection = sorted((a, b), key=lambda flow: self._order[self._maker[flow.layer]])
            self._draw[self.draw(projection.layer)] = self.draw(main.layer)
        else:
            main = b if b.direct else a
        return Flow(main.layer, main.repeat, main.flat)
