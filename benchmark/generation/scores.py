"""Distances and scores between sets of feature vectors; formulas from well-kept libraries.

Kernel distance, precision/recall and Inception score are torch-fidelity's functions on
features; the Fréchet distance is pytorch-fid's formula in a form that singular covariances
(and SciPy 1.18, which refuses pytorch-fid's call) don't break. No chance but a fixed seed.

torch-fidelity is imported where it is called: it brings torchvision and torch's compiler, which
a command that plans, or reads records, would wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.errors import UserError

Array = NDArray[np.float64]

SEED = 2020
"""Seed of the subsets that KID draws and of the shuffle before IS: torch-fidelity's own."""

KID_SUBSETS, KID_SUBSET = 50, 1000
"""Subsets of the kernel distance, and images of one at most."""

IS_SPLITS = 10
"""Parts of the Inception score, whose spread is no spread over seeds."""

NEIGHBOURS = 3
"""Neighbours k of precision and recall (Kynkäänniemi et al., 2019)."""


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to feature vectors.

    Parameters
    ----------
    mean : ndarray
        float64 [d].
    covariance : ndarray
        float64 [d, d], divided by n - 1; zero for a single vector.
    count : int
        Number of vectors n ≥ 1.
    """

    mean: Array
    covariance: Array
    count: int

    @property
    def enough(self) -> bool:
        """Whether the covariance can have full rank: more vectors than dimensions."""
        return self.count > len(self.mean)


def statistics_of(features: Tensor) -> Statistics:
    """Fit a Gaussian to feature vectors [n, d], in fp64.

    Raises
    ------
    ValueError
        If there is no vector, or one that is not finite.
    """
    if features.dim() != 2 or not len(features):
        raise ValueError(f"statistics take features [n, d] with n >= 1, not {list(features.shape)}")
    values = features.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise ValueError("a feature is NaN or infinite")
    mean = values.mean(0)
    centred = values - mean
    covariance = centred.T @ centred / max(len(values) - 1, 1)
    return Statistics(mean.numpy(), covariance.numpy(), len(values))


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Return the squared Fréchet distance of two Gaussians (Heusel et al., 2017, equation 6).

    ``|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½)``, as pytorch-fid has it (a test compares both).
    The root's trace is taken as that of the symmetric ``(S1^½ S2 S1^½)^½``, which exists for
    singular covariances too: a collapsed generator has a distance, and not an error.

    Raises
    ------
    ValueError
        If the dimensions differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"{len(first.mean)} features against {len(second.mean)}")
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)
    gap = first.mean - second.mean
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    # Equal sets come out as -1e-12 or so.
    return max(float(gap @ gap + spread - 2 * np.sqrt(shared).sum()), 0.0)


def kernel_distance(generated: Tensor, real: Tensor) -> float | None:
    """Return the kernel distance (KID, Bińkowski et al., 2018) of features [n, d] and [m, d].

    The unbiased estimate, so it may be slightly negative; ``None`` with fewer than two vectors.
    """
    size = min(KID_SUBSET, len(generated), len(real))
    if size < 2:
        return None
    from torch_fidelity.metric_kid import kid_features_to_metric

    values = kid_features_to_metric(
        generated.double(),
        real.double(),
        kid_subsets=KID_SUBSETS,
        kid_subset_size=size,
        rng_seed=SEED,
        verbose=False,
    )
    return float(values["kernel_inception_distance_mean"])


def inception_score(logits: Tensor) -> tuple[float, float] | None:
    """Return the Inception score of logits [n, classes] and its spread over ten splits.

    ``None`` with fewer images than splits.
    """
    if len(logits) < IS_SPLITS:
        return None
    from torch_fidelity.metric_isc import isc_features_to_metric

    values = isc_features_to_metric(logits.double().cpu(), splits=IS_SPLITS, rng_seed=SEED)
    return float(values["inception_score_mean"]), float(values["inception_score_std"])


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float] | None:
    """Return precision and recall of features [n, d] against real ones [m, d].

    Precision is the share of generated vectors within the real manifold, recall the share of
    real ones within the generated one (k = 3); ``None`` where either has k vectors or fewer.
    """
    if min(len(generated), len(real)) <= NEIGHBOURS:
        return None
    _check_order()
    return _library_shares(generated.float(), real.float(), NEIGHBOURS)


def _library_shares(generated: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    with torch.no_grad():
        values = prc_features_to_metric(generated, real, prc_neighborhood=neighbours, verbose=False)
    return float(values["precision"]), float(values["recall"])


@cache
def _check_order() -> None:
    """Check once that the library takes generated vectors first: it was the other way round.

    Of two points on either side both generated ones lie within the real manifold, and one of
    the real ones within the generated.

    Raises
    ------
    UserError
        If precision and recall come out otherwise, such as swapped.
    """
    found = _library_shares(torch.tensor([[0.0], [0.1]]), torch.tensor([[0.0], [10.0]]), 1)
    if found != (1.0, 0.5):
        raise UserError(
            f"torch-fidelity: precision and recall of a known case are {found[0]:g} and "
            f"{found[1]:g}, not 1 and 0.5 (swapped?); install torch-fidelity>=0.4.0"
        )
