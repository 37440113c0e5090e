"""Mosaic's experts as a function from images to one logit vector per class expert."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from methods.blocks.parts import Epoch, Pool
from methods.blocks.runtime import Precision
from methods.mosaic.mixing import ExpertMixer, ExpertWeights

if TYPE_CHECKING:
    from benchmark.models.base import Classifier


class Experts(Protocol):
    """One expert per class, frozen; both functions give [B, experts, classes] logits."""

    @property
    def num_experts(self) -> int:
        """Number of experts."""

    def logits(self, images: Tensor) -> Tensor:
        """Run images [B, C, H, W] in classifier range through every whole expert."""

    def head_logits(self, features: Tensor) -> Tensor:
        """Run penultimate features [B, F] through every expert's linear head alone.

        The features need not be the experts' own: the published code shows these heads
        features of the global backbone.
        """


class ParameterExperts:
    """Experts whose weights are averages of the clients' weights (the paper's).

    At most ``resident`` experts are held as models; the others are built into one model,
    one after the other, whenever they are asked. Memory is then the same for 10 classes
    and for 200.

    Parameters
    ----------
    model : Classifier
        Any model of the experts' architecture; copied.
    mixer : ExpertMixer
        Makes the experts' states.
    resident : int or None
        Experts held at once, ``None`` for all.
    """

    def __init__(self, model: Classifier, mixer: ExpertMixer, resident: int | None = 16) -> None:
        self._mixer = mixer
        self._frame = _frozen_copy(model)
        self._head = _head_name(model)
        held = mixer.num_experts if resident is None else min(resident, mixer.num_experts)
        self._held = [self._built(_frozen_copy(model), expert) for expert in range(held)]

    @property
    def num_experts(self) -> int:
        """Number of experts, one per class."""
        return self._mixer.num_experts

    def __deepcopy__(self, memo: dict[int, object]) -> ParameterExperts:
        # Frozen: a teacher that is copied for the record may share them.
        return self

    def expert(self, index: int) -> Classifier:
        """Return one expert, frozen, in evaluation mode; the next call may overwrite it."""
        if index < len(self._held):
            return self._held[index]
        return self._built(self._frame, index)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits [B, C, C] of images [B, channels, H, W]; axis 1 is the expert.

        Gradients flow to images that ask for them.
        """
        with gradients_for(images) as wanted:
            if wanted:
                answers = [self._answer(index, images) for index in range(self.num_experts)]
                return torch.stack(answers, dim=1)
            return self._filled(images)

    def _answer(self, index: int, images: Tensor) -> Tensor:
        if index < len(self._held):
            held: Tensor = self._held[index](images)
            return held
        # The shared frame can't be overwritten while gradients still need its weights. Uploads
        # wait in the main memory, whatever the frame computes on.
        device = next(self._frame.parameters()).device
        state = {name: value.to(device) for name, value in self._mixer.state(index).items()}
        built: Tensor = functional_call(self._frame, state, (images,))
        return built

    def _filled(self, images: Tensor) -> Tensor:
        first: Tensor = self.expert(0)(images)
        # Filled in place: for many classes a stack of answers would be all there is twice.
        answers = first.new_empty(len(first), self.num_experts, first.shape[1])
        answers[:, 0] = first
        for index in range(1, self.num_experts):
            answers[:, index] = self.expert(index)(images)
        return answers

    @torch.no_grad()
    def head_logits(self, features: Tensor) -> Tensor:
        """Return logits [B, C, C] of features [B, F] by the experts' heads alone."""
        outputs = []
        for index in range(self.num_experts):
            state = self._mixer.state(index, self._head)
            weight, bias = (state[name].to(features) for name in self._head)
            outputs.append(F.linear(features, weight, bias))
        return torch.stack(outputs, dim=1)

    def _built(self, model: Classifier, index: int) -> Classifier:
        model.load_state_dict(self._mixer.state(index))
        return model


class LogitExperts:
    """Experts that mix the clients' outputs, ``sum_k n_kc f_k(x) / sum_k n_kc`` (ours).

    They need no common architecture. With one holder of a class they equal
    :class:`ParameterExperts`.

    Parameters
    ----------
    models : sequence of Classifier
        The clients' models; put in evaluation mode.
    weights : ExpertWeights
        Who counts for which expert.

    Raises
    ------
    ValueError
        If there is not one model for each client in ``weights``.
    """

    def __init__(self, models: Sequence[Classifier], weights: ExpertWeights) -> None:
        if len(models) != weights.values.shape[1]:
            raise ValueError(f"{weights.values.shape[1]} label counts but {len(models)} models")
        self._models = [model.eval() for model in models]
        self._weights = weights

    def __deepcopy__(self, memo: dict[int, object]) -> LogitExperts:
        return self

    @property
    def num_experts(self) -> int:
        """Number of experts, one per class."""
        return self._weights.num_experts

    def logits(self, images: Tensor) -> Tensor:
        """Return logits [B, C, C] of images [B, channels, H, W]; axis 1 is the expert.

        Gradients flow to images that ask for them.
        """
        with gradients_for(images):
            return self._mix([model(images) for model in self._models])

    @torch.no_grad()
    def head_logits(self, features: Tensor) -> Tensor:
        """Return logits [B, C, C] of features [B, F] by the mixed heads alone.

        Raises
        ------
        ValueError
            If a client's head takes features of another length.
        """
        for client, model in enumerate(self._models):
            if model.head.in_features != features.shape[1]:
                raise ValueError(
                    f"client {client}'s head takes {model.head.in_features} features, not "
                    f"{features.shape[1]}; train the meta model on synthetic images instead"
                )
        return self._mix([model.head(features) for model in self._models])

    def _mix(self, outputs: list[Tensor]) -> Tensor:
        shares = self._weights.shares.to(outputs[0])
        mixed: Tensor = torch.einsum("ek,kbc->bec", shares, torch.stack(outputs))
        return mixed


class MosaicTeacher(nn.Module):
    """The teacher: experts under a meta model, or their plain mean without one.

    Parameters
    ----------
    experts : Experts
        Frozen experts. They are no sub-modules: neither moved nor trained with the teacher.
    meta : Module or None
        From expert logits [B, E, C] to logits [B, C].
    precision : callable
        Says, each time, how forward passes are computed: reduced while it teaches, exact
        when it is evaluated.
    """

    fixed = True
    """The meta model is trained before there are images."""

    def __init__(
        self,
        experts: Experts,
        meta: nn.Module | None = None,
        precision: Callable[[], Precision] = Precision,
    ) -> None:
        super().__init__()
        self.experts = experts
        self.meta = meta
        self._precision = precision

    def __deepcopy__(self, memo: dict[int, object]) -> MosaicTeacher:
        # What says the precision refers to the whole server: it is shared, like the experts.
        return MosaicTeacher(self.experts, copy.deepcopy(self.meta, memo), self._precision)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of images [B, channels, H, W] in classifier range.

        Gradients flow to images that ask for them, such as those a generator is making.
        """
        with gradients_for(images):
            return self.combine(self._precision().run(self.experts.logits, images))

    def combine(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] of expert logits [B, E, C]."""
        if self.meta is None:
            return logits.mean(dim=1)
        return self._precision().run(self.meta, logits)

    def improve(self, epoch: Epoch, pool: Pool) -> None:
        """Do nothing: what could learn has learned already."""


@contextmanager
def gradients_for(images: Tensor) -> Iterator[bool]:
    """Record gradients only where ``images`` ask for them; say whether they do."""
    wanted = torch.is_grad_enabled() and images.requires_grad
    with torch.set_grad_enabled(wanted):
        yield wanted


def _frozen_copy(model: Classifier) -> Classifier:
    return copy.deepcopy(model).eval().requires_grad_(False)


def _head_name(model: Classifier) -> tuple[str, str]:
    """Return the state-dict names of the head's weight and bias."""
    for name, module in model.named_modules():
        if module is model.head:
            return f"{name}.weight", f"{name}.bias"
    raise ValueError(f"{type(model).__name__}.head is not one of its sub-modules")
