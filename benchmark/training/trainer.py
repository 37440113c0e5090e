"""The one trainer: plain SGD on cross-entropy, the same for every method and reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmark.contexts import Loss
from benchmark.errors import DivergedError, UserError
from benchmark.images import Normalization
from benchmark.seeds import seeded_global
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.training.batches import Augmentation, Batches, NoAugmentation
from benchmark.training.compilation import compiled
from benchmark.training.precision import autocast, limited_threads, moved

CHECK_EVERY = 50
"""Steps between looks at the losses: each look waits for the device."""

OnStep = Callable[[int, int, Tensor], None]
"""Called after each step with steps done, steps in all, and the loss (0-d, on the device)."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    loss : float
        Loss of the last batch, before the last update.
    epoch_loss : float
        Mean of the batch losses of the last epoch (of all steps, if they were fewer).
    seconds : float
        Wall time.
    """

    steps: int
    loss: float
    epoch_loss: float
    seconds: float


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    recipe: RecipeSpec,
    normalization: Normalization,
    augmentation: Augmentation | None = None,
    generator: torch.Generator,
    compute: ComputeSpec,
    steps: int | None = None,
    lr: float | None = None,
    class_mask: Tensor | None = None,
    objective: Loss | None = None,
    on_step: OnStep | None = None,
    where: str = "model",
) -> TrainingSummary:
    """Train ``model`` in place, and leave it in eval mode.

    The forward pass runs at the precision of ``compute``; loss, gradients, weights and
    optimiser are fp32. At an equal number of threads the result is bit-identical on one
    machine. Batch norms that see a single value per channel (a last batch of one image, on a
    map of one pixel) have no batch statistics: for that step they use their running ones.

    Parameters
    ----------
    model : nn.Module
        From images [B, C, H, W] in classifier range to logits [B, classes].
    images : Tensor
        uint8 [n, C, H, W], n ≥ 1.
    labels : Tensor
        int64 [n].
    recipe : RecipeSpec
        Epochs, batch size and SGD's hyper-parameters.
    normalization : Normalization
        To classifier range.
    augmentation : Augmentation, optional
        The dataset's; used if ``recipe.augment`` says so.
    generator : torch.Generator
        Source of all chance, dropout included.
    compute : ComputeSpec
        Precision, threads, and whether the model is compiled. The device is the model's.
    steps : int, optional
        SGD steps, over reshuffled epochs; the recipe's epochs if not given.
    lr : float, optional
        First learning rate; the recipe's if not given. The recipe's schedule spans this
        training.
    class_mask : Tensor, optional
        bool [classes]: logits of other classes are set to zero in the loss (the masked
        cross-entropy of HeteroFL, arXiv 2010.01264, section 3).
    objective : callable, optional
        The loss, see :data:`benchmark.contexts.Loss`; the mean cross-entropy if not given.
    on_step : callable, optional
        Progress, see :data:`OnStep`; it must change neither the model nor any random stream.
    where : str
        Who is trained, for error messages.

    Raises
    ------
    UserError
        If there are no samples.
    ValueError
        If images, labels and normalisation don't fit each other, or ``steps`` is below 1.
    DivergedError
        If a loss or a weight is NaN or infinite, naming the first such step (0-based).
    """
    if len(labels) == 0:
        raise UserError(f"{where} has no training samples; every client needs at least one")
    started = time.perf_counter()
    device = next(model.parameters()).device
    batches = Batches(
        moved(images, device),
        moved(labels, device),
        batch_size=recipe.batch_size,
        normalization=normalization,
        augmentation=augmentation if recipe.augment and augmentation else NoAugmentation(),
        generator=generator,
    )
    total = recipe.epochs * len(batches) if steps is None else steps
    if total < 1:
        raise ValueError(f"steps must be at least 1, got {total}")
    mask = None if class_mask is None else moved(class_mask, device)
    losses = _LossLog(total, device, where)
    with _training(model, generator, compute, device), ExitStack() as stack:
        optimizer = _sgd(model, recipe, recipe.lr if lr is None else lr)
        schedule = CosineAnnealingLR(optimizer, total) if recipe.schedule == "cosine" else None
        forward = stack.enter_context(compiled(model)) if compute.compile else model
        for step, (inputs, targets) in enumerate(batches.cycle(total)):
            with _usable_batch_norm(model, len(targets)), autocast(compute, device):
                logits = forward(inputs)
                own = objective and objective(model, inputs, masked(logits, mask), targets)
            loss = cross_entropy(logits, targets, mask) if own is None else own
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            losses.add(step, loss.detach())
            if on_step is not None:
                on_step(step + 1, total, loss.detach())
        losses.finish(model)
    last = losses.values[-len(batches) :]
    return TrainingSummary(
        steps=total,
        loss=float(last[-1]),
        epoch_loss=float(last.mean()),
        seconds=time.perf_counter() - started,
    )


def cross_entropy(logits: Tensor, targets: Tensor, class_mask: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy in fp32.

    Parameters
    ----------
    logits : Tensor
        [B, classes], of any floating type.
    targets : Tensor
        int64 [B].
    class_mask : Tensor, optional
        bool [classes]; logits of classes outside it are set to zero.
    """
    return F.cross_entropy(masked(logits, class_mask), targets)


def masked(logits: Tensor, class_mask: Tensor | None) -> Tensor:
    """Return logits [B, classes] in fp32, those of classes outside a bool mask [classes] zero."""
    logits = logits.float()
    return logits if class_mask is None else logits.masked_fill(~class_mask, 0.0)


def _sgd(model: nn.Module, recipe: RecipeSpec, lr: float) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


@contextmanager
def _training(
    model: nn.Module, generator: torch.Generator, compute: ComputeSpec, device: torch.device
) -> Iterator[None]:
    """Prepare model and process for training, and put back what is not the model's weights."""
    with ExitStack() as stack:
        stack.enter_context(seeded_global(generator, device))
        stack.enter_context(limited_threads(compute.threads))
        stack.enter_context(torch.enable_grad())
        if device.type == "cuda":
            exact = {"benchmark": False, "deterministic": True, "allow_tf32": False}
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, **exact))
        model.train()
        model.to(memory_format=torch.channels_last)
        try:
            yield
        finally:
            for parameter in model.parameters():
                parameter.grad = None
            # Serialisers and slicing expect weights in plain order.
            model.to(memory_format=torch.contiguous_format)
            model.eval()


@contextmanager
def _usable_batch_norm(model: nn.Module, batch: int) -> Iterator[None]:
    """Let batch norms pass a single value per channel, by their running statistics.

    Only a batch of one image can have one value per channel, so that no other batch pays.
    """
    if batch > 1:
        yield
        return
    changed: list[nn.Module] = []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module.training and args[0].numel() == args[0].shape[1]:
            module.training = False
            changed.append(module)

    handles = [
        module.register_forward_pre_hook(before)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in changed:
            module.training = True


class _LossLog:
    """Losses of all steps on the device, looked at now and then.

    Parameters
    ----------
    total : int
        Number of steps.
    device : torch.device
        Where the losses are.
    where : str
        Who is trained.
    """

    def __init__(self, total: int, device: torch.device, where: str) -> None:
        self.values = torch.zeros(total, device=device)
        self.where = where
        self._checked = 0

    def add(self, step: int, loss: Tensor) -> None:
        """Keep the loss of a step; raise if one since the last look is not finite."""
        self.values[step] = loss
        if (step + 1) % CHECK_EVERY == 0:
            self._check(step + 1)

    def finish(self, model: nn.Module) -> None:
        """Raise if a loss or a weight is not finite after the last step."""
        self._check(len(self.values))
        tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
        if not bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all()):
            raise DivergedError(self.where, len(self.values) - 1, "weights are not finite")

    def _check(self, end: int) -> None:
        recent = self.values[self._checked : end]
        bad = ~torch.isfinite(recent)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            value = float(recent[first])
            raise DivergedError(self.where, self._checked + first, f"loss is {value}")
        self._checked = end
