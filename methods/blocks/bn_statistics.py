"""Batch-norm statistics loss: how far a batch is from what a frozen classifier has seen.

Every batch-norm layer of a trained classifier remembers the mean and variance of its input.
Images that reproduce these numbers look, to that classifier, like its training data
(Yin et al., 2020, arXiv:1912.08795, equation 4). Mosaic's inversion term, DENSE's and
Co-Boosting's L_bn are this one loss, summed over layers; whoever has several classifiers
sums or averages over them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle


class _ChannelMoments(torch.autograd.Function):
    """Mean and biased variance [C] of each channel of [B, C, H, W], in two sweeps each way.

    Mathematically ``torch.var_mean(inputs, (0, 2, 3), correction=0)``, which on a CPU takes
    seven times as long forward, and six sweeps over the activations backward.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean = inputs.mean((0, 2, 3), keepdim=True)
        variance = (inputs - mean).square_().mean((0, 2, 3))
        ctx.save_for_backward(inputs, mean)
        return mean.flatten(), variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> Tensor:
        inputs, mean = ctx.saved_tensors
        count = inputs.numel() // inputs.shape[1]
        slope = (2 * of_variance / count).view_as(mean)
        level = (of_mean / count).view_as(mean)
        return torch.addcmul(level - slope * mean, inputs, slope)


def layer_distance(inputs: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """Distance between the statistics of one layer's input and its running statistics.

    ``||mean_running - mean||_2 + ||var_running - var||_2``, norms over channels and not
    squared, with the biased variance over batch and space (published code of DENSE,
    Co-Boosting and Mosaic agree on this form).

    Parameters
    ----------
    inputs : Tensor
        Input of the layer, [B, C, H, W].
    layer : BatchNorm2d
        Layer with running statistics.

    Returns
    -------
    Tensor
        Scalar, differentiable with respect to ``inputs``; its gradient is zero, not NaN,
        where a norm is zero.
    """
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("a BatchNorm2d layer keeps no running statistics to compare with")
    if inputs.dtype in (torch.float16, torch.bfloat16):
        inputs = inputs.float()
    mean, variance = _ChannelMoments.apply(inputs)
    # vector_norm has subgradient 0 at 0, where a hand-written sqrt(sum of squares) has NaN.
    of_mean: Tensor = torch.linalg.vector_norm(layer.running_mean - mean)
    of_variance: Tensor = torch.linalg.vector_norm(layer.running_var - variance)
    return of_mean + of_variance


class BatchNormStatistics:
    """Read the batch-norm statistics loss off the forward passes of a frozen classifier.

    Hooks are registered once, when the context is entered, and removed when it is left::

        with BatchNormStatistics(classifier) as statistics:
            for _ in range(steps):
                logits = classifier(images)
                loss = statistics.loss()

    Layers are found by type (``BatchNorm2d``), never by name.

    Parameters
    ----------
    model : Module
        Classifier in evaluation mode. A model without batch norm is allowed and has loss
        zero; ``num_layers`` tells.

    Raises
    ------
    ValueError
        If a batch-norm layer is in training mode or keeps no running statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self._handles: list[RemovableHandle] = []
        self._terms: list[Tensor] = []
        for layer in self._layers:
            if layer.running_mean is None:
                raise ValueError("a BatchNorm2d layer keeps no running statistics to compare with")
            if layer.training:
                raise ValueError("a BatchNorm2d layer is in training mode; call model.eval() first")

    @property
    def num_layers(self) -> int:
        """Number of batch-norm layers that count."""
        return len(self._layers)

    def __enter__(self) -> BatchNormStatistics:
        self._handles = [layer.register_forward_pre_hook(self._collect) for layer in self._layers]
        self._handles.append(self._model.register_forward_pre_hook(self._restart))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._terms.clear()

    def layer_losses(self) -> list[Tensor]:
        """Take the distances of the last forward pass, one scalar per layer in call order.

        Raises
        ------
        RuntimeError
            If the model has not run since the distances were last taken.
        """
        if not self._terms and self._layers:
            raise RuntimeError("no forward pass since the statistics were last read")
        terms, self._terms = self._terms, []
        return terms

    def loss(self) -> Tensor:
        """Take the loss of the last forward pass: the sum of its layers' distances (scalar).

        Raises
        ------
        RuntimeError
            If the model has not run since the loss was last taken.
        """
        terms = self.layer_losses()
        if terms:
            return torch.stack(terms).sum()
        like = next(self._model.parameters(), torch.empty(0))
        return torch.zeros((), dtype=like.dtype, device=like.device)

    def _restart(self, _module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        self._terms = []

    def _collect(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            self._terms.append(layer_distance(inputs[0], layer))


def bn_statistics_loss(model: nn.Module, images: Tensor) -> Tensor:
    """Run ``images`` [B, C, H, W] through a frozen ``model`` and return the loss (scalar).

    For a single batch; a loop should enter :class:`BatchNormStatistics` once.
    """
    with BatchNormStatistics(model) as statistics:
        model(images)
        return statistics.loss()
