"""Mosaic's generator and discriminator: unconditional DCGANs without convolution biases.

Layer order, state names and initial distributions are those of the published code
(arXiv:2505.19699): 3,573,824 and 2,759,424 parameters with 100 noise values, widths
of 64 and 3 channels. Other widths, one channel and 64×64 images are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.errors import UserError

_CONV_STD = 0.02


def _multipliers(image_size: int) -> tuple[int, ...]:
    """Channel multiples of the generator's hidden layers, from 4×4 up to the full size."""
    # The 64×64 stage repeats the narrowest width: 66 thousand parameters more, where
    # doubling the widest layer would quadruple what a client uploads.
    by_size = {32: (8, 4, 2, 1), 64: (8, 4, 2, 1, 1)}
    if image_size not in by_size:
        raise UserError(f"Mosaic's generator makes images of 32 or 64 pixels, not {image_size}")
    return by_size[image_size]


@dataclass(frozen=True)
class GanShape:
    """Sizes that determine a generator and its discriminator.

    Parameters
    ----------
    channels : int
        Image channels.
    image_size : int
        32 or 64 pixels.
    noise : int
        Length of the noise vector.
    width, discriminator_width : int
        Channels of the generator's last and the discriminator's first hidden layer.
    """

    channels: int = 3
    image_size: int = 32
    noise: int = 100
    width: int = 64
    discriminator_width: int = 64

    def __post_init__(self) -> None:
        _multipliers(self.image_size)
        for name in ("channels", "noise", "width", "discriminator_width"):
            if getattr(self, name) < 1:
                raise UserError(f"generator: {name} must be at least 1, got {getattr(self, name)}")

    def build_generator(self, random: torch.Generator) -> Generator:
        """Return a generator with fresh weights, on the device of ``random``."""
        return Generator(self, random)

    def build_discriminator(self, random: torch.Generator) -> Discriminator:
        """Return a discriminator with fresh weights, on the device of ``random``."""
        return Discriminator(self, random)

    def load_generator(
        self, state: dict[str, Tensor], device: torch.device | str = "cpu"
    ) -> Generator:
        """Return a frozen generator in evaluation mode with an uploaded ``state``.

        Raises
        ------
        UserError
            If the state does not fit the shape.
        """
        generator = Generator(self, None)
        try:
            generator.load_state_dict(state, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"uploaded generator does not fit its shape: {reason}") from None
        return generator.to(device).eval().requires_grad_(False)


class Generator(nn.Module):
    """From noise [B, nz, 1, 1] to images [B, C, H, W] in tanh range.

    Parameters
    ----------
    shape : GanShape
        Sizes.
    random : torch.Generator or None
        Stream of the initial weights, which live on its device; ``None`` leaves them on
        the meta device, to be loaded.
    """

    def __init__(self, shape: GanShape, random: torch.Generator | None) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.width * m for m in _multipliers(shape.image_size)]
        with torch.device("meta"):
            layers: list[nn.Module] = []
            for index, width in enumerate(widths):
                before = shape.noise if index == 0 else widths[index - 1]
                stride, padding = (1, 0) if index == 0 else (2, 1)
                layers += [
                    nn.ConvTranspose2d(before, width, 4, stride, padding, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            layers += [
                nn.ConvTranspose2d(widths[-1], shape.channels, 1, bias=False),
                nn.Tanh(),
            ]
            self.main = nn.Sequential(*layers)
        if random is not None:
            _materialise(self, random)

    def forward(self, noise: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [-1, 1]."""
        images: Tensor = self.main(noise)
        return images


class Discriminator(nn.Module):
    """From images [B, C, H, W] in tanh range to the probability that each is real.

    Parameters
    ----------
    shape : GanShape
        Sizes.
    random : torch.Generator
        Stream of the initial weights, which live on its device.
    """

    def __init__(self, shape: GanShape, random: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.discriminator_width * m for m in reversed(_multipliers(shape.image_size))]
        with torch.device("meta"):
            layers: list[nn.Module] = []
            for index, width in enumerate(widths):
                before = shape.channels if index == 0 else widths[index - 1]
                layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=False))
                if index > 0:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.LeakyReLU(0.2, inplace=True))
            layers.append(nn.Conv2d(widths[-1], 1, 2, 2, 0, bias=False))
            self.main = nn.Sequential(*layers)
        _materialise(self, random)

    def logits(self, images: Tensor) -> Tensor:
        """Return the log-odds [B] that each image is real."""
        scores: Tensor = self.main(images)
        return scores.flatten()

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability [B] that each image is real."""
        return self.logits(images).sigmoid()


def _materialise(model: nn.Module, random: torch.Generator) -> None:
    """Allocate a meta-device model and draw its weights: conv N(0, .02), norm N(1, .02)."""
    model.to_empty(device=random.device)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.normal_(0.0, _CONV_STD, generator=random)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.weight.normal_(1.0, _CONV_STD, generator=random)
                layer.bias.zero_()


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
