from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.blocks.augment import crop_and_flip, random_crop_and_flip


@settings(max_examples=20, deadline=None)
@given(top=st.integers(0, 4), left=st.integers(0, 4), flip=st.booleans(), uint8=st.booleans())
def test_crop_and_flip_equals_the_plain_definition(
    top: int, left: int, flip: bool, uint8: bool
) -> None:
    images = torch.randint(0, 256, (1, 3, 6, 5), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8 if uint8 else torch.float32)
    padded = torch.nn.functional.pad(images, (2,) * 4)
    expected = padded[:, :, top : top + 6, left : left + 5]
    expected = expected.flip(3) if flip else expected
    got = crop_and_flip(
        images,
        top=torch.tensor([top]),
        left=torch.tensor([left]),
        flip=torch.tensor([flip]),
        padding=2,
    )
    assert got.dtype == images.dtype
    assert torch.equal(got, expected)


def test_each_image_has_its_own_draw(kit) -> None:
    images = torch.rand(1, 1, 8, 8, generator=kit.stream(1)).expand(64, 1, 8, 8)
    views = random_crop_and_flip(images, kit.stream(2), padding=4, flip=True)
    assert len({tuple(view.flatten().tolist()) for view in views}) > 40


def test_all_corners_and_half_of_the_mirrorings_occur(kit) -> None:
    images = torch.zeros(4000, 1, 3, 3)
    images[:, :, 1, 2] = 1
    mirrored = random_crop_and_flip(images, kit.stream(3), flip=True)[:, 0, 1, 0].mean()
    assert 0.45 < float(mirrored) < 0.55
    shifted = random_crop_and_flip(images, kit.stream(4), padding=1)
    places = {tuple(v.nonzero()[0].tolist()) if v.any() else () for v in shifted[:, 0]}
    # Shifting by -1, 0, 1 in both directions: rows 0-2, and columns 1, 2 or out of sight.
    assert places == {(r, c) for r in range(3) for c in (1, 2)} | {()}


def test_gradient_reaches_exactly_the_pixels_that_are_seen(kit) -> None:
    images = torch.rand(16, 2, 6, 6, generator=kit.stream(5), requires_grad=True)
    view = random_crop_and_flip(images, kit.stream(6), padding=2, flip=True)
    view.sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}
    seen = (images * images.grad).sum((1, 2, 3))
    torch.testing.assert_close(seen, view.sum((1, 2, 3)))


def test_nothing_asked_is_nothing_done_and_nothing_drawn(kit) -> None:
    images = torch.rand(2, 1, 4, 4, generator=kit.stream(7))
    generator = kit.stream(8)
    state = generator.get_state()
    assert random_crop_and_flip(images, generator) is images
    assert torch.equal(generator.get_state(), state)
