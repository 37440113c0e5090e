"""Class prototypes: what a client tells the server about its classes in feature space.

For each class, the k-means centres of the penultimate features of the client's images,
or their mean where there are fewer than k (arXiv:2505.19699, published code: scikit-learn's
k-means++ with one start and random state 42).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from methods.mosaic.modes import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmark.models.base import Classifier

RANDOM_STATE = 42
"""Seed of k-means (published code)."""


@dataclass(frozen=True)
class Prototypes:
    """Feature vectors with their classes.

    Parameters
    ----------
    features : Tensor
        [P, F] float32.
    labels : Tensor
        [P] int64.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.labels.shape != self.features.shape[:1]:
            raise ValueError(
                f"prototypes must be [P, F] with [P] labels, got {list(self.features.shape)} "
                f"and {list(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Prototypes:
        """Return the prototypes on another device."""
        return Prototypes(self.features.to(device), self.labels.to(device))


def join_prototypes(parts: Sequence[Prototypes]) -> Prototypes:
    """Put the prototypes of several clients (or rounds) together, in the given order.

    Raises
    ------
    ValueError
        If there are none, or their features differ in length.
    """
    if not parts:
        raise ValueError("no prototypes to join")
    lengths = sorted({part.features.shape[1] for part in parts})
    if len(lengths) > 1:
        raise ValueError(f"prototypes of different feature lengths {lengths} live in no one space")
    return Prototypes(
        torch.cat([part.features for part in parts]), torch.cat([part.labels for part in parts])
    )


def class_prototypes(features: Tensor, labels: Tensor, clusters: int) -> Prototypes:
    """Summarise features class by class.

    Parameters
    ----------
    features : Tensor
        [N, F], any device.
    labels : Tensor
        [N] int64.
    clusters : int
        Centres k of a class with at least k samples; a smaller class gives its mean.

    Returns
    -------
    Prototypes
        On the CPU, classes ascending; classes without samples have none.

    Raises
    ------
    ValueError
        If ``clusters`` is below 1.
    """
    if clusters < 1:
        raise ValueError(f"at least one prototype a class is needed, got {clusters}")
    points, classes = features.detach().float().cpu(), labels.cpu()
    centres, owners = [], []
    # One thread: sums over more come out in another order, and k-means may then take
    # another road.
    with threadpool_limits(1):
        for label in torch.unique(classes).tolist():
            mine = points[classes == label]
            few = len(mine) < clusters
            found = mine.mean(0, keepdim=True) if few else _centres(mine, clusters)
            centres.append(found)
            owners += [label] * len(found)
    if not centres:
        return Prototypes(points[:0], classes[:0].long())
    return Prototypes(torch.cat(centres), torch.tensor(owners, dtype=torch.int64))


def _centres(points: Tensor, clusters: int) -> Tensor:
    # Two seconds of imports, which only a run that makes prototypes is to wait for.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(clusters, n_init=1, random_state=RANDOM_STATE)  # type: ignore[no-untyped-call, unused-ignore]
    # Fewer distinct points than centres is no fault; centres then repeat.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points.numpy())
    return torch.from_numpy(np.asarray(model.cluster_centers_, dtype=np.float32))


@torch.no_grad()
def collect_features(
    model: Classifier,
    batches: Iterable[Tensor],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Return the penultimate features [N, F] (float32) of images in classifier range.

    The model runs in evaluation mode, and is handed back in the mode it was in.
    """
    with frozen(model), autocast():
        return torch.cat([model.features(images).float() for images in batches])


def scatter_features(features: Tensor, owned: Tensor, length: int) -> Tensor:
    """Place a narrow model's features [P, f] at the positions it owns of [P, length].

    Parameters
    ----------
    features : Tensor
        [P, f].
    owned : Tensor
        [f] int64, distinct positions below ``length``.
    length : int
        Features of the full model; positions not owned are zero.

    Raises
    ------
    ValueError
        If there is not one position for each feature.
    """
    if owned.shape != features.shape[1:]:
        raise ValueError(f"{features.shape[1]} features but {len(owned)} positions")
    full = features.new_zeros(len(features), length)
    full[:, owned.to(features.device)] = features
    return full
