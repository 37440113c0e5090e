"""The scheme that experiments use draws the published count tables from the published stream.

The replays of ``partition_parity`` meet the same tables, but no run uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from datasets.partition_schemes import Dirichlet, Problem

GOLDEN = Path(__file__).parents[1] / "golden"
MOSAIC = np.load(GOLDEN / "mosaic" / "partition.npz")
DENSE = np.load(GOLDEN / "dense_coboost" / "dense_partition.npz")


class Published(np.random.Generator):
    """The published stream: a class's samples are shuffled before its shares are drawn.

    Only ``dirichlet`` is answered from it: a draw that asks for more is not the published one.
    """

    def __init__(self, seed: int, sizes: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self._legacy = np.random.RandomState(seed)
        self._sizes: Iterator[int] = iter(sizes)

    def dirichlet(self, alpha: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # type: ignore[override]
        self._legacy.shuffle(np.arange(next(self._sizes)))
        return self._legacy.dirichlet(alpha)


def drawn(alpha: float, clients: int, classes: int, seed: int) -> npt.NDArray[np.int64]:
    sizes = np.full(classes, 50_000 // classes, dtype=np.int64)
    return Dirichlet(alpha).draw(Problem(sizes, clients), Published(seed, sizes.tolist()))


@pytest.mark.parametrize("alpha", ["0.01", "0.1", "1.0"])
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_dirichlet_draws_mosaics_tables(dataset: str, classes: int, alpha: str) -> None:
    tag = f"{dataset}_n10_seed5363_alpha{alpha}"
    assert int(MOSAIC[f"{tag}.attempts"]) == 1, "a table of the first draw"
    expected = MOSAIC[f"{tag}.label_counts"]
    np.testing.assert_array_equal(drawn(float(alpha), 10, classes, 5363), expected)


@pytest.mark.parametrize(("beta", "clients", "seed"), [(0.5, 5, 1), (0.1, 5, 1), (0.3, 10, 2)])
def test_dirichlet_draws_denses_tables(beta: float, clients: int, seed: int) -> None:
    expected = DENSE[f"cifarlike_b{beta}_m{clients}_s{seed}_counts"]
    np.testing.assert_array_equal(drawn(beta, clients, 10, seed), expected)
