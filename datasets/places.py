"""Where data is looked for, and how what is missing is fetched."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.catalog import DatasetSpec, spec_of
from datasets.errors import DataError
from datasets.progress import Progress, silent

_LOG = logging.getLogger(__name__)

#: Environment variable that names a data root.
DATA_VARIABLE = "ONESHOT_FL_DATA"
_LOCK_SECONDS = 1800.0


@dataclass(frozen=True)
class Location:
    """Where a dataset is, or all places that don't have it.

    Parameters
    ----------
    name : str
        The dataset.
    place : Path or None
        The folder that holds it; None when it was found nowhere.
    files : tuple of Path
        Its files, in the order its decoder wants them; empty when it was found nowhere.
    tried : tuple of str
        Every place looked at without success, in order, with what is missing there.
    """

    name: str
    place: Path | None
    files: tuple[Path, ...]
    tried: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether the dataset can be read without a download."""
        return self.place is not None


def user_data_root() -> Path:
    """Return the data root below the user's data folder, where downloads go by default."""
    import platformdirs

    return platformdirs.user_data_path("oneshot-fl") / "data"


def _places(spec: DatasetSpec, data_root: Path | None) -> Iterator[Path]:
    """Yield the folders to look at: data root, environment, system or library, user data."""
    variable = os.environ.get(DATA_VARIABLE)
    for root in (data_root, Path(variable) if variable else None):
        if root is not None:
            yield from (root.expanduser() / folder for folder in spec.subfolders)
    yield from spec.own_places()
    if spec.subfolders:
        yield from (user_data_root() / folder for folder in spec.subfolders)


def locate(name: str, data_root: Path | None = None) -> Location:
    """Look for a dataset without opening or downloading it.

    The order is: ``data_root``, the folder named by the environment variable
    ``ONESHOT_FL_DATA``, where the system or a library puts it, the user's data folder. Below a
    root, its own folder (``<root>/<name>``), torchvision's layout
    (``<root>/FashionMNIST/raw``) and the root itself are looked at.

    Parameters
    ----------
    name : str
        A name of the catalogue.
    data_root : Path, optional
        Looked at first.

    Returns
    -------
    Location
        Where it is, or the list of places tried.

    Raises
    ------
    DataError
        If there is no dataset of that name.
    """
    spec = spec_of(name)
    tried: list[str] = []
    for place in dict.fromkeys(_places(spec, data_root)):
        try:
            result = spec.search(place)
        except OSError as error:
            tried.append(f"{place} ({error.strerror})")
            continue
        if result.files:
            return Location(name, place, result.files, tuple(tried))
        lacks = f" (lacks {', '.join(result.missing)})" if result.partial else ""
        tried.append(f"{place}{lacks}")
    return Location(name, None, (), tuple(tried))


def obtain(
    name: str, data_root: Path | None, *, download: bool, progress: Progress = silent
) -> Location:
    """Locate a dataset, and download it where that is allowed and needed.

    Parameters
    ----------
    name : str
        A name of the catalogue.
    data_root : Path, optional
        Looked at first, and where a download goes (default: the user's data folder).
    download : bool
        Whether a download is allowed.
    progress : callable
        Called while downloading, with bytes.

    Returns
    -------
    Location
        Always one that was found.

    Raises
    ------
    DataError
        One line with every place tried, why a download failed, and how to get the data.
    """
    location = locate(name, data_root)
    if location.found:
        return location
    spec = spec_of(name)
    if not download:
        outcome = "download not allowed"
    elif spec.download is None:
        outcome = "nothing to download"
    else:
        root = (data_root or user_data_root()).expanduser()
        outcome = _try_download(spec, root, progress)
        location = locate(name, data_root)
        if location.found:
            return location
    places = "; ".join(location.tried) or "no place to look at"
    raise DataError(f"dataset '{name}' not found. Tried: {places}; {outcome}. Right: {spec.advice}")


def _try_download(spec: DatasetSpec, root: Path, progress: Progress) -> str:
    """Download below ``root``, one process at a time; return what happened in words."""
    from filelock import FileLock

    fetch = spec.download
    if fetch is None:
        return "nothing to download"
    name = spec.info.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock", timeout=_LOCK_SECONDS):
            if locate(name, root).found:  # another process was faster
                return f"downloaded into {root} by another process"
            _LOG.info("downloading %s into %s", name, root)
            fetch(root, progress)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"download into {root} failed ({reason})"
    return f"downloaded into {root}"
