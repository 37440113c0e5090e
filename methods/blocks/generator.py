"""The small image generator of DENSE, which Co-Boosting uses too (arXiv 2112.12371)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import UserError
from methods.blocks.runtime import draw_normal

_INITIAL_STD = 0.02
_LEAK = 0.2


class UpsampledConv2d(nn.Conv2d):
    """Nearest-neighbour upsampling by two and a 3×3 convolution, in one operation (ours).

    Of the nine products of a pixel most are with the same input pixel: their weights can be
    added up first. What remains is a transposed convolution with a 4×4 kernel and stride 2, with
    16 products where the plain way has 36. The weight stays that of the convolution, so that
    training and initialisation are its own.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps [B, outputs, 2H, 2W] for maps [B, inputs, H, W]."""
        sums = F.avg_pool2d(self.weight, 2, stride=1, padding=1, divisor_override=1)
        return F.conv_transpose2d(images, sums.flip(2, 3).transpose(0, 1), stride=2, padding=1)


def _upsampled(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        UpsampledConv2d(inputs, outputs),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(_LEAK),
    ]


class DenseGenerator(nn.Module):
    """Noise [B, noise_size] to unit-range images [B, channels, image_size, image_size].

    A linear layer to a quarter of the resolution, then twice upsampling and a
    convolution (published code of DENSE). It has no label input. It is meant to stay in
    train mode: batch statistics belong to its function.

    Parameters
    ----------
    generator : torch.Generator
        Source of the initial weights.
    image_size : int
        Height and width, a multiple of 4.
    channels : int
        Image channels.
    noise_size, width : int
        Length of the noise vector, and channels of the last hidden layer (published code:
        256 and 64).

    Raises
    ------
    UserError
        If ``image_size`` is not a positive multiple of 4.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        image_size: int = 32,
        channels: int = 3,
        noise_size: int = 256,
        width: int = 64,
    ) -> None:
        super().__init__()
        if image_size < 4 or image_size % 4:
            raise UserError(f"image size is {image_size}; a generator needs a multiple of 4")
        self.image_size = image_size
        self.noise_size = noise_size
        side, deep = image_size // 4, 2 * width
        # Skipping torch's own initialisation keeps the global random stream untouched.
        with torch.device("meta"):
            self.project = nn.Linear(noise_size, deep * side * side)
            self.draw = nn.Sequential(
                nn.Unflatten(1, (deep, side, side)),
                nn.BatchNorm2d(deep),
                *_upsampled(deep, deep),
                *_upsampled(deep, width),
                nn.Conv2d(width, channels, 3, padding=1),
                nn.Sigmoid(),
            )
        self.to_empty(device="cpu")
        self.reinitialise(generator)

    @torch.no_grad()
    def reinitialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew: N(0, 0.02), batch-norm scales N(1, 0.02), shifts 0.

        Done at the start of every synthesis (published code). Running statistics are
        reset too, which nothing reads in train mode.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
                mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
                noise = draw_normal(module.weight.shape, generator, module.weight)
                module.weight.copy_(noise * _INITIAL_STD + mean)
                if module.bias is not None:
                    module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    def forward(self, noise: Tensor) -> Tensor:
        """Return images [B, C, H, W] in unit range for noise [B, noise_size]."""
        images: Tensor = self.draw(self.project(noise))
        return images
