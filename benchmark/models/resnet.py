"""CIFAR-style ResNet-18 (He et al., arXiv 1512.03385) at any width.

A 3x3 stem without pooling and four stages of two post-activation basic blocks, as in the published
code of Mosaic (arXiv 2505.19699), DENSE (arXiv 2112.12371) and Co-Boosting (arXiv 2402.15070).
"""

from __future__ import annotations

from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.models.base import Classifier, norm_layer
from benchmark.models.widths import scaled

STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms, and a shortcut added before the last ReLU.

    Parameters
    ----------
    channels_in, channels_out : int
        Channels of the input and the output.
    stride : int
        Stride of the first convolution and of the shortcut; above 1 with ``project`` only.
    norm : str
        As in :func:`benchmark.models.base.norm_layer`.
    project : bool
        Whether the shortcut is a 1x1 convolution with norm, and not the identity. It is
        given and not read off the channel counts, so that narrow models keep the layers of the
        full model even where two stages come out equally wide.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, norm: str, project: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = norm_layer(norm, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = norm_layer(norm, channels_out)
        self.shortcut = nn.Sequential()
        if project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
                norm_layer(norm, channels_out),
            )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H / stride, W / stride]."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.stride > 1:
            # Every stride-th pixel, then a 1x1 convolution of stride 1: the same as the strided
            # one, whose gradient oneDNN gets wrong, or crashes in, for fewer than 8 channels
            # (channels-last on CPUs without AVX-512; oneDNN issue 6035).
            x = F.avg_pool2d(x, 1, self.stride)
        return F.relu(out + self.shortcut(x))


class ResNet18(Classifier):
    """ResNet-18 for small images; 11,173,962 parameters at width 1 with 3 channels and 10 classes.

    Parameters
    ----------
    num_classes, channels : int
        Logits and image channels.
    width : Fraction
        In (0, 1]; a stage of n channels keeps ``ceil(width * n)``.
    norm : {"batch", "group"}
        Normalisation after each convolution.
    """

    def __init__(self, num_classes: int, channels: int, width: Fraction, norm: str) -> None:
        super().__init__()
        stages = [scaled(n, width) for n in STAGE_CHANNELS]
        self.conv1 = nn.Conv2d(channels, stages[0], 3, padding=1, bias=False)
        self.norm1 = norm_layer(norm, stages[0])
        self.layer1 = self._stage(0, stages[0], stages[0], norm)
        self.layer2 = self._stage(1, stages[0], stages[1], norm)
        self.layer3 = self._stage(2, stages[1], stages[2], norm)
        self.layer4 = self._stage(3, stages[2], stages[3], norm)
        self.head = nn.Linear(stages[3], num_classes)

    @staticmethod
    def _stage(index: int, channels_in: int, channels_out: int, norm: str) -> nn.Sequential:
        stride = STAGE_STRIDES[index]
        return nn.Sequential(
            BasicBlock(channels_in, channels_out, stride, norm, project=index > 0),
            BasicBlock(channels_out, channels_out, 1, norm, project=False),
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the globally average-pooled last map, [B, ceil(512 * width)]."""
        x = F.relu(self.norm1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
