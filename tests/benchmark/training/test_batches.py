from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.images import Normalization
from benchmark.training.batches import Batches, NoAugmentation, epoch_order

NORMS = {1: Normalization((0.3,), (0.2,)), 3: Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(
    n: int,
    channels: int = 3,
    *,
    size: int = 6,
    batch: int = 4,
    padding: int = 0,
    flip: bool = False,
) -> tuple[Tensor, Tensor, Batches]:
    images = torch.randint(
        1, 256, (n, channels, size, size), dtype=torch.uint8, generator=stream(1)
    )
    labels = torch.arange(n)
    batches = Batches(
        images,
        labels,
        batch_size=batch,
        normalization=NORMS[channels],
        augmentation=NoAugmentation(padding, flip),
        generator=stream(),
    )
    return images, labels, batches


@given(n=st.integers(1, 40), batch=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_an_epoch_holds_every_sample_once_and_keeps_the_partial_batch(n: int, batch: int) -> None:
    _, _, batches = make(n, batch=batch)
    sizes, seen = [], []
    for images, labels in batches.epoch():
        sizes.append(len(images))
        seen += labels.tolist()
    assert sorted(seen) == list(range(n))
    assert sizes[:-1] == [batch] * (n // batch if n % batch else n // batch - 1)
    assert len(sizes) == len(batches)


def test_epochs_differ_and_streams_repeat() -> None:
    _, _, one = make(30)
    _, _, two = make(30)
    first = torch.cat([labels for _, labels in one.epoch()])
    second = torch.cat([labels for _, labels in one.epoch()])
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat([labels for _, labels in two.epoch()]))


def test_cycle_goes_over_reshuffled_epochs() -> None:
    _, _, batches = make(6, batch=4)
    labels = [batch.tolist() for _, batch in batches.cycle(5)]
    assert [len(batch) for batch in labels] == [4, 2, 4, 2, 4]
    assert sorted(labels[0] + labels[1]) == sorted(labels[2] + labels[3]) == list(range(6))
    assert labels[0] + labels[1] != labels[2] + labels[3]


@pytest.mark.parametrize("channels", [1, 3])
def test_without_augmentation_images_are_the_normalized_ones(channels: int) -> None:
    images, _, batches = make(9, channels)
    for inputs, labels in batches.epoch():
        expected = NORMS[channels].from_uint8(images[labels])
        torch.testing.assert_close(inputs, expected, atol=2e-6, rtol=1e-6)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        assert inputs.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_is_a_window_of_the_black_padded_image(channels: int) -> None:
    p, size = 2, 6
    images, _, batches = make(60, channels, size=size, batch=60, padding=p, flip=True)
    padded = torch.nn.functional.pad(images, (p, p, p, p))
    corners, flips = set(), 0
    for inputs, labels in batches.epoch():
        for image, label in zip(inputs, labels, strict=True):
            windows = {
                (y, x, flip): NORMS[channels].from_uint8(
                    (window.flip(-1) if flip else window)[None]
                )[0]
                for y in range(2 * p + 1)
                for x in range(2 * p + 1)
                for window in [padded[label, :, y : y + size, x : x + size]]
                for flip in (False, True)
            }
            hits = [k for k, w in windows.items() if torch.allclose(w, image, atol=1e-5)]
            assert len(hits) == 1
            corners.add(hits[0][:2])
            flips += hits[0][2]
    assert len(corners) > 15
    assert 15 < flips < 45


def test_crops_are_uniform_and_flips_even() -> None:
    n = 20000
    images = torch.zeros(n, 1, 3, 3, dtype=torch.uint8)
    images[:, 0, 1, 1] = 200
    images[:, 0, 1, 2] = 100
    batches = Batches(
        images,
        torch.zeros(n, dtype=torch.int64),
        batch_size=n,
        normalization=Normalization((0.0,), (1.0,)),
        augmentation=NoAugmentation(1, True),
        generator=stream(),
    )
    inputs, _ = next(batches.epoch())
    pixels = (inputs[:, 0] * 255).round().to(torch.int64)
    where = (pixels == 200).flatten(1).float().mean(0)
    torch.testing.assert_close(where, torch.full((9,), 1 / 9), atol=0.012, rtol=0)
    # Of the images whose bright pixel stands in the middle, half have the dim one on its left.
    centred = pixels[pixels[:, 1, 1] == 200]
    assert (centred[:, 1, 0] == 100).float().mean() == pytest.approx(0.5, abs=0.04)


def test_the_order_is_a_permutation_of_its_generator_alone() -> None:
    state = torch.random.get_rng_state()
    order = epoch_order(50, stream(3), torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, epoch_order(50, stream(3), torch.device("cpu")))
    assert not torch.equal(order, epoch_order(50, stream(4), torch.device("cpu")))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), "uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2), "uint8"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3), "2 images"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "1 channels"),
    ],
)
def test_what_does_not_fit_is_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(
            images,
            labels,
            batch_size=2,
            normalization=NORMS[3],
            augmentation=NoAugmentation(),
            generator=stream(),
        )
