"""A pre-activation ResNet laid out as in FedRolex's published code, to read its golden numbers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Scaler(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return x / self.rate if self.training else x


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, momentum=None, track_running_stats=False)


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, rate: float) -> None:
        super().__init__()
        self.n1 = norm(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.n2 = norm(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.scaler = Scaler(rate)
        self.project = stride != 1 or cin != cout
        if self.project:
            self.shortcut = nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.n1(self.scaler(x)))
        skip = self.shortcut(out) if self.project else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.n2(self.scaler(out))))
        out += skip
        return out


class PreActivationResNet(nn.Module):
    def __init__(
        self, hidden: list[int], blocks: list[int], classes: int, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, hidden[0], 3, 1, 1, bias=False)
        cin = hidden[0]
        for stage, (cout, count) in enumerate(zip(hidden, blocks, strict=True), start=1):
            layers = []
            for block in range(count):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(Block(cin, cout, stride, rate))
                cin = cout
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.n4 = norm(cin)
        self.scaler = Scaler(rate)
        self.linear = nn.Linear(cin, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        out = F.relu(self.n4(self.scaler(out)))
        out = F.adaptive_avg_pool2d(out, 1)
        out = out.view(out.size(0), -1)
        return self.linear(out)
