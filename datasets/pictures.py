"""Data that is pictures, one by one: where they lie, their labels, and how one is decoded."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import DataError
from datasets.image_dataset import Images, Labels

#: File name endings that count as pictures in users' own folders, in lower case.
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff",
)  # fmt: skip

# Pillow knows formats that run other programs (EPS); data sets don't use them.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_GREY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F")

Reader = Callable[[str], bytes]
"""From a picture's name in its set to the bytes of its file; may be called by many threads."""


@dataclass(frozen=True, eq=False)
class PictureList:
    """The pictures of one split, in order.

    Parameters
    ----------
    names : tuple of str
        Names within the set, with ``/`` between folders.
    labels : numpy.ndarray
        int64 [N].

    Raises
    ------
    DataError
        If they differ in number, or are none.
    """

    names: tuple[str, ...]
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.names) != len(self.labels):
            raise DataError(f"{len(self.names)} pictures but {len(self.labels)} labels")
        if not self.names:
            raise DataError("a split must have at least one picture")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """The pictures of a dataset, not yet decoded.

    Parameters
    ----------
    where : Path
        The folder or archive that holds them, for messages.
    reader : callable
        Opens the set: a context manager that gives a :data:`Reader`.
    train, test : PictureList
        The two splits.
    class_names : tuple of str
        One per class, in label order.
    channels : int
        1 (grey pictures only) or 3 (grey ones become colour).
    """

    where: Path
    reader: Callable[[], AbstractContextManager[Reader]]
    train: PictureList
    test: PictureList
    class_names: tuple[str, ...]
    channels: int = 3


def folder_reader(root: Path) -> Callable[[], AbstractContextManager[Reader]]:
    """Return the opener of pictures that are files below ``root``."""

    def read(name: str) -> bytes:
        path = root / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror})") from error

    @contextmanager
    def opened() -> Iterator[Reader]:
        yield read

    return opened


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what a damaged zip archive raises into an error that names it."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # or encrypted
        raise DataError(
            f"{path}: damaged zip archive ({error}); delete it and fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive.

    Raises
    ------
    DataError
        If it can't be read, is not a zip archive, or is truncated.
    """
    with _naming(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def zip_reader(path: Path, prefix: str) -> Callable[[], AbstractContextManager[Reader]]:
    """Return the opener of pictures in a zip archive, below ``prefix``.

    The archive's checksum of each member is checked when it is read.
    """

    @contextmanager
    def opened() -> Iterator[Reader]:
        with open_zip(path) as archive:

            def read(name: str) -> bytes:
                try:
                    with _naming(path):
                        return archive.read(prefix + name)
                except KeyError as error:
                    raise DataError(f"{path}: lacks {prefix}{name}") from error

            yield read

    return opened


def decode_picture(content: bytes, size: int, channels: int, where: str) -> Images:
    """Decode one picture and resize it to ``size`` × ``size`` pixels.

    The rule of the published codes (torchvision's loader and ``Resize``): all pixels are
    decoded, then Pillow's bilinear filter with antialiasing; the aspect ratio is not kept,
    transparency is dropped, and orientation tags are ignored.

    Parameters
    ----------
    content : bytes
        The picture's file.
    size : int
        Height and width in pixels.
    channels : int
        1 or 3.
    where : str
        What to call the picture in an error.

    Returns
    -------
    numpy.ndarray
        uint8 [channels, size, size].

    Raises
    ------
    DataError
        If it is no picture, truncated, deeper than 8 bits, or colour where grey is asked for.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            _check_mode(picture, channels, where)
            plain = picture.convert("L" if channels == 1 else "RGB")
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: damaged picture ({_reason(error)})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: picture too large ({_reason(error)})") from error
    if plain.size != (size, size):
        plain = plain.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(plain, dtype=np.uint8).reshape(size, size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def picture_shape(path: Path, where: str) -> tuple[int, int]:
    """Return a picture's number of channels (1 or 3) and its larger side, from its header.

    Raises
    ------
    DataError
        If it is no picture, or can't be read.
    """
    from PIL import Image

    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    try:
        with stream, Image.open(stream, formats=_FORMATS) as picture:
            return (1 if picture.mode in _GREY_MODES else 3), max(picture.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: damaged picture ({_reason(error)})") from error


def _check_mode(picture: Any, channels: int, where: str) -> None:
    if picture.mode.startswith(_DEEP_MODES):
        raise DataError(f"{where}: more than 8 bits a channel; convert it to 8 bits")
    if channels == 1 and picture.mode not in _GREY_MODES:
        raise DataError(f"{where}: a colour picture where all were grey; give the command again")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "not a picture format known here" if "cannot identify" in text else text


def lacking(wanted: Sequence[str], present: set[str], where: Path) -> None:
    """Check that all pictures of a list are there, before hours are spent on the first ones.

    Raises
    ------
    DataError
        Names the first missing picture and how many there are.
    """
    missing = [name for name in wanted if name not in present]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{where}: lacks {missing[0]}{more} of {len(wanted)} pictures listed; "
            "unpack or fetch it again"
        )
