"""Small plain convolutional classifiers at any width.

ReLU comes after max-pooling: the same numbers and gradients, bit for bit, on a quarter of the map.
"""

from __future__ import annotations

from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.models.base import Classifier, norm_layer
from benchmark.models.widths import scaled


class CNN(Classifier):
    """Three blocks of 3x3 convolution, norm, ReLU and 2x2 max-pooling; ours.

    Convolutions have a bias only without norm, where it is not redundant.

    Parameters
    ----------
    num_classes, channels : int
        Logits and image channels.
    width : Fraction
        In (0, 1], applied to 32-64-128 channels.
    norm : {"batch", "group", "none"}
        Normalisation after each convolution.
    """

    def __init__(self, num_classes: int, channels: int, width: Fraction, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        n1, n2, n3 = (scaled(n, width) for n in (32, 64, 128))
        self.conv1 = nn.Conv2d(channels, n1, 3, padding=1, bias=bias)
        self.norm1 = norm_layer(norm, n1)
        self.conv2 = nn.Conv2d(n1, n2, 3, padding=1, bias=bias)
        self.norm2 = norm_layer(norm, n2)
        self.conv3 = nn.Conv2d(n2, n3, 3, padding=1, bias=bias)
        self.norm3 = norm_layer(norm, n3)
        self.head = nn.Linear(n3, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the globally average-pooled last map, [B, ceil(128 * width)]."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(images)), 2))
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))
        x = F.relu(F.max_pool2d(self.norm3(self.conv3(x)), 2))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class LeNet(Classifier):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling; 61,706 parameters without norm.

    The third convolution covers the whole map of a 32-pixel image, so it acts as a fully connected
    layer and carries no norm (whose batch statistics would not exist for a single image).

    Parameters
    ----------
    num_classes, channels : int
        Logits and image channels.
    width : Fraction
        In (0, 1], applied to 6-16-120 channels and 84 hidden units.
    norm : {"batch", "group", "none"}
        Normalisation after the first two convolutions.
    image_size : int
        Image side in pixels, at least 32; sets the hidden layer's number of inputs.
    """

    def __init__(
        self, num_classes: int, channels: int, width: Fraction, norm: str, image_size: int
    ) -> None:
        super().__init__()
        n1, n2, n3, hidden = (scaled(n, width) for n in (6, 16, 120, 84))
        side = ((image_size - 4) // 2 - 4) // 2 - 4
        self.conv1 = nn.Conv2d(channels, n1, 5)
        self.norm1 = norm_layer(norm, n1)
        self.conv2 = nn.Conv2d(n1, n2, 5)
        self.norm2 = norm_layer(norm, n2)
        self.conv3 = nn.Conv2d(n2, n3, 5)
        self.fc = nn.Linear(n3 * side * side, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the hidden layer after its ReLU, [B, ceil(84 * width)]."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(images)), 2))
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))
        x = F.relu(self.conv3(x)).flatten(1)
        return F.relu(self.fc(x))


class CNNCifar(Classifier):
    """The default client of DENSE and Co-Boosting on CIFAR-10 (published code).

    319,242 parameters at width 1 with 3 channels, 32 pixels, 10 classes and no norm.

    Parameters
    ----------
    num_classes, channels : int
        Logits and image channels.
    width : Fraction
        In (0, 1], applied to 128-128-128 channels.
    norm : {"none", "batch", "group"}
        Normalisation after each convolution; the published network has none.
    image_size : int
        Image side in pixels; sets the head's number of inputs.
    """

    def __init__(
        self, num_classes: int, channels: int, width: Fraction, norm: str, image_size: int
    ) -> None:
        super().__init__()
        n = scaled(128, width)
        side = ((image_size - 2) // 2 - 2) // 2 - 2
        self.conv1 = nn.Conv2d(channels, n, 3)
        self.norm1 = norm_layer(norm, n)
        self.conv2 = nn.Conv2d(n, n, 3)
        self.norm2 = norm_layer(norm, n)
        self.conv3 = nn.Conv2d(n, n, 3)
        self.norm3 = norm_layer(norm, n)
        self.head = nn.Linear(n * side * side, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the flattened last map, [B, ceil(128 * width) * side²]."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(images)), 2))
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))
        return F.relu(self.norm3(self.conv3(x))).flatten(1)


class CNNMnist(Classifier):
    """The client of DENSE on MNIST and Fashion-MNIST (published code).

    29,034 parameters at width 1 with 1 channel, 28 pixels, 10 classes and batch norm.

    Parameters
    ----------
    num_classes, channels : int
        Logits and image channels.
    width : Fraction
        In (0, 1], applied to 16-32 channels.
    norm : {"batch", "group", "none"}
        Normalisation after each convolution.
    image_size : int
        Image side in pixels; sets the head's number of inputs.
    """

    def __init__(
        self, num_classes: int, channels: int, width: Fraction, norm: str, image_size: int
    ) -> None:
        super().__init__()
        n1, n2 = scaled(16, width), scaled(32, width)
        side = image_size // 2 // 2
        self.conv1 = nn.Conv2d(channels, n1, 5, padding=2)
        self.norm1 = norm_layer(norm, n1)
        self.conv2 = nn.Conv2d(n1, n2, 5, padding=2)
        self.norm2 = norm_layer(norm, n2)
        self.head = nn.Linear(n2 * side * side, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the flattened last map, [B, ceil(32 * width) * side²]."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(images)), 2))
        return F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2)).flatten(1)
