"""One training step of a client's generator and its discriminator.

The order of updates within a step is that of the published code (arXiv:2505.19699): the
discriminator learns from real and generated images first, then the *same* generated
images face the updated discriminator. Only images and the client's own frozen
classifier enter; labels are not needed, so no class can be lost on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from methods.blocks.bn_statistics import BatchNormStatistics
from methods.mosaic.losses import adversarial_loss, generator_terms
from methods.mosaic.networks import Discriminator, Generator
from methods.mosaic.settings import GeneratorSettings, LossWeights

Autocast = Callable[[], AbstractContextManager[Any]]
LOSS_NAMES = (
    "discriminator_real",
    "discriminator_fake",
    "adversarial",
    "entropy",
    "diversity",
    "inversion",
    "generator",
)
"""Columns of a loss history."""


@dataclass
class Gan:
    """A generator, its discriminator and their optimisers."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Adam
    discriminator_optimizer: Adam


def make_gan(
    generator: Generator, discriminator: Discriminator, settings: GeneratorSettings
) -> Gan:
    """Give two networks their optimisers (Adam, created once per client)."""
    betas = (settings.beta1, settings.beta2)
    return Gan(
        generator,
        discriminator,
        Adam(generator.parameters(), lr=settings.lr, betas=betas),
        Adam(discriminator.parameters(), lr=settings.lr, betas=betas),
    )


@dataclass(frozen=True)
class Guide:
    """The client's classifier, as the generator meets it.

    Parameters
    ----------
    classifier : Module
        From images in classifier range to logits [B, C].
    convert : callable
        From tanh range to the range that the classifier is shown.
    statistics : BatchNormStatistics or None
        Entered on ``classifier`` where the inversion term is on.
    """

    classifier: nn.Module
    convert: Callable[[Tensor], Tensor]
    statistics: BatchNormStatistics | None = None


def gan_step(
    gan: Gan,
    real: Tensor,
    noise: Tensor,
    guide: Guide,
    weights: LossWeights,
    *,
    autocast: Autocast = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Update discriminator, then generator, once.

    Parameters
    ----------
    gan : Gan
        Both networks in training mode.
    real : Tensor
        Real images [B, C, H, W] in the range that the discriminator is shown.
    noise : Tensor
        [B', nz, 1, 1].
    guide : Guide
        Its classifier's mode is left as it is; freezing it is the caller's part.
    weights : LossWeights
        Weights of the generator's loss.
    autocast : callable
        Makes the context of forward passes; entered anew after each update, since it may
        cache converted weights.

    Returns
    -------
    tuple of Tensor
        Losses [7] named by ``LOSS_NAMES``, and the labels [B'] that the classifier gives
        the generated images; both detached, on the device.
    """
    gan.discriminator_optimizer.zero_grad(set_to_none=True)
    with autocast():
        loss_real = adversarial_loss(gan.discriminator.logits(real), real=True)
    torch.autograd.backward(loss_real)
    with autocast():
        fake = gan.generator(noise)
        logits, distance = _ask(guide, fake, weights)
        loss_fake = adversarial_loss(gan.discriminator.logits(fake.detach()), real=False)
    torch.autograd.backward(loss_fake)
    gan.discriminator_optimizer.step()

    gan.generator_optimizer.zero_grad(set_to_none=True)
    with autocast():
        terms = generator_terms(gan.discriminator.logits(fake), logits, distance, weights)
    # Naming the inputs spares the discriminator's weight gradients, which nobody would use.
    torch.autograd.backward(terms.total, inputs=list(gan.generator.parameters()))
    gan.generator_optimizer.step()
    values = (loss_real, loss_fake, terms.adversarial, terms.entropy, terms.diversity)
    losses = torch.stack([v.detach() for v in (*values, terms.inversion, terms.total)])
    return losses, logits.detach().argmax(dim=1)


def _ask(guide: Guide, fake: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor | None]:
    """Show generated images to the classifier: logits, and batch-norm distance if it counts."""
    wanted = bool(weights.entropy or weights.diversity or weights.inversion)
    with torch.set_grad_enabled(wanted):
        logits = guide.classifier(guide.convert(fake))
    if guide.statistics is None or not weights.inversion:
        return logits, None
    return logits, guide.statistics.loss()
