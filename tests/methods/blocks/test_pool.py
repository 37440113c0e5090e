from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.images import Normalization
from methods.blocks.parts import Batch
from methods.blocks.pool import FreshPool, GrowingPool, batch_sizes, grouped, quantise

UNIT = Normalization((0.0,) * 3, (1.0,) * 3)


def _numbered(count: int, start: int = 0) -> torch.Tensor:
    """Images whose every pixel is their number."""
    numbers = torch.arange(start, start + count, dtype=torch.uint8)
    return numbers.view(-1, 1, 1, 1).expand(count, 3, 4, 6).contiguous()


def _read(pool, size, **kwargs) -> list[int]:
    batches = pool.batches(size, **kwargs)
    return [round(float(i[0, 0, 0]) * 255) for batch in batches for i in batch.images]


def test_golden_dense_pool_fedavg_pool_part(golden, kit) -> None:
    arrays = golden("dense_pool_fedavg.npz")
    assert torch.equal(quantise(arrays["x"]), arrays["read_back_uint8"])
    pool = GrowingPool((3, 4, 6), UNIT, dtype=torch.float64)
    pool.add(arrays["x"])
    assert torch.equal(pool.images, arrays["read_back_uint8"])
    (batch,) = pool.batches(5, generator=kit.stream())
    key = arrays["read_back"].sum((1, 2, 3)).sort().values
    torch.testing.assert_close(batch.images.sum((1, 2, 3)).sort().values, key, rtol=0, atol=1e-12)
    pool.add(arrays["x"][:2])
    assert pool.size == int(arrays["pool_len_after_two_adds"])
    assert pool.images.dtype == torch.uint8
    assert pool.images.numel() == 7 * 3 * 4 * 6


def test_quantisation_truncates_and_clamps() -> None:
    values = torch.tensor([-0.5, 0.0, 0.999, 1.0, 1.7, 254.9 / 255])
    assert quantise(values).tolist() == [0, 0, 254, 255, 255, 254]


def test_a_pass_shows_each_image_once_with_its_label(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT, capacity=3)
    pool.add(_numbered(3), torch.arange(3))
    pool.add(_numbered(8, 3), torch.arange(3, 11))
    batches = list(pool.batches(4, generator=kit.stream()))
    assert [len(batch.images) for batch in batches] == [4, 4, 3]
    labels = torch.cat([batch.labels for batch in batches])
    numbers = torch.cat([batch.images[:, 0, 0, 0] for batch in batches]) * 255
    assert torch.equal(numbers.round().long(), labels)
    assert sorted(labels.tolist()) == list(range(11))
    assert labels.tolist() != list(range(11))


def test_order_depends_on_the_stream_alone(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT, crop_padding=1, flip=True)
    pool.add(torch.rand(9, 3, 4, 6, generator=kit.stream(1)))
    state = torch.get_rng_state()
    reads = [
        torch.cat([b.images for b in pool.batches(4, generator=kit.stream(seed))])
        for seed in (2, 2, 3)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(reads[0], reads[1])
    assert not torch.equal(reads[0], reads[2])


@settings(max_examples=25, deadline=None)
@given(wanted=st.integers(0, 40), size=st.integers(1, 9))
def test_asked_number_of_images_is_read_evenly(wanted: int, size: int) -> None:
    pool = GrowingPool((3, 4, 6), UNIT)
    pool.add(_numbered(7))
    seen = _read(pool, size, generator=torch.Generator().manual_seed(0), images=wanted)
    assert len(seen) == wanted
    counts = [seen.count(number) for number in range(7)]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [(0, 4, []), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (3, 1, [1] * 3)],
)
def test_batch_sizes_keep_the_rest_but_never_one_alone(images, size, expected) -> None:
    assert batch_sizes(images, size) == expected


def test_older_is_the_pool_before_the_newest_images(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT)
    pool.add(_numbered(2))
    assert pool.older() is None
    pool.add(_numbered(3, 2))
    older = pool.older()
    assert older.size == 2
    assert sorted(_read(older, 8, generator=kit.stream())) == [0, 1]
    pool.add(_numbered(100, 5))
    assert sorted(_read(pool.older(), 8, generator=kit.stream())) == [0, 1, 2, 3, 4]
    pool.settle()
    assert pool.older().size == 105


def test_reading_normalises_to_classifier_range(kit) -> None:
    pool = GrowingPool((3, 4, 6), Normalization((0.5, 0.25, 0.0), (0.5, 0.25, 2.0)))
    pool.add(torch.ones(1, 3, 4, 6))
    (batch,) = pool.batches(1, generator=kit.stream())
    assert batch.images[0, :, 0, 0].tolist() == [1.0, 3.0, 0.5]


def test_augmentation_pads_with_black_before_normalising(kit) -> None:
    pool = GrowingPool((3, 4, 6), Normalization((0.5,) * 3, (0.5,) * 3), crop_padding=2)
    pool.add(torch.ones(20, 3, 4, 6))
    (batch,) = pool.batches(20, generator=kit.stream())
    assert set(batch.images.unique().tolist()) == {-1.0, 1.0}


def test_unlabelled_images_make_an_unlabelled_pool(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT)
    pool.add(_numbered(2), torch.arange(2))
    pool.add(_numbered(2))
    assert pool.labels.tolist() == [0, 1, -1, -1]
    assert next(pool.batches(2, generator=kit.stream())).labels is None


def test_a_new_pool_is_private_and_empty() -> None:
    # Not inherited: a folder of images that a second run silently reads again.
    first = GrowingPool((3, 4, 6), UNIT)
    first.add(_numbered(5))
    assert GrowingPool((3, 4, 6), UNIT).size == 0


def test_bad_calls_are_refused(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT)
    with pytest.raises(ValueError, match="empty pool"):
        next(pool.batches(2, generator=kit.stream()))
    with pytest.raises(ValueError, match="do not fit"):
        pool.add(torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match="3 labels for 2 images"):
        pool.add(_numbered(2), torch.arange(3))
    with pytest.raises(ValueError, match="batch size is 0"):
        batch_sizes(3, 0)


def test_fresh_pool_draws_what_is_asked_and_is_its_own_past(kit) -> None:
    sizes = []

    def sample(count: int, generator: torch.Generator) -> Batch:
        sizes.append(count)
        return Batch(torch.rand(count, 3, 4, 6, generator=generator), None)

    pool = FreshPool(sample)
    assert pool.size is None
    assert pool.older() is pool
    images = [b.images for b in pool.batches(32, generator=kit.stream(), images=80)]
    assert sizes == [32, 32, 16]
    assert len(torch.cat(images).unique(dim=0)) == 80
    with pytest.raises(ValueError, match="no full pass"):
        next(pool.batches(32, generator=kit.stream()))


def test_grouping_keeps_order_and_bounds_size() -> None:
    batches = [Batch(torch.full((n, 1, 1, 1), float(n)), None) for n in (3, 3, 2, 9, 1)]
    groups = list(grouped(iter(batches), 6))
    assert [[len(b.images) for b in group] for group in groups] == [[3, 3], [2], [9], [1]]
    assert list(grouped(iter([]), 6)) == []
