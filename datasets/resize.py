"""Resizing, once at load: Pillow's bilinear filter, the rule of torchvision's ``Resize``."""

from __future__ import annotations

import numpy as np

from datasets.image_dataset import Images


def resize_images(images: Images, size: int) -> Images:
    """Resize images to ``size`` × ``size`` pixels.

    Pillow's bilinear filter with its default antialiasing when shrinking, per image and in
    8 bits, which is what the published codes apply through torchvision. Images that already
    have the size are returned as they are.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 [N, C, H, W] with C = 1 or 3.
    size : int
        New height and width in pixels.

    Returns
    -------
    numpy.ndarray
        uint8 [N, C, size, size].
    """
    from PIL import Image

    if images.shape[2:] == (size, size):
        return images
    count, channels = images.shape[:2]
    resized = np.empty((count, size, size, channels), dtype=np.uint8)
    # Pillow wants [H, W] for grey images and [H, W, 3] for colour.
    source = images[:, 0] if channels == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    for index in range(count):
        picture = Image.fromarray(source[index]).resize((size, size), Image.Resampling.BILINEAR)
        resized[index] = np.asarray(picture).reshape(size, size, channels)
    return np.ascontiguousarray(resized.transpose(0, 3, 1, 2))
