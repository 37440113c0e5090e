"""Users' own data: ``folder:PATH``, a class-per-folder tree, and ``npz:PATH``, four arrays.

Both are normalised by moments measured on their training part, and not augmented: what
leaves a class as it is only their owner knows. A dataset of this kind is named by its path.
Fingerprints are of its content, as decoded; the cache of what was decoded goes by the content of
an archive, and by names, sizes and times of a folder's pictures.
"""

from __future__ import annotations

from pathlib import Path

from datasets.catalog import DatasetSpec
from datasets.errors import DataError, closest


def is_own(name: str) -> bool:
    """Return whether a dataset is a user's own, named by its path."""
    return ":" in name


def own_spec(kind: str, path: str) -> DatasetSpec:
    """Return the table entry for data of a user's own.

    Parameters
    ----------
    kind : str
        ``"folder"``: PATH has one folder for each class, or ``train/`` and ``test/`` that
        have; without these, a fixed stratified fifth of the pictures is the test part.
        ``"npz"``: PATH is a NumPy archive of ``x_train``, ``y_train``, ``x_test``, ``y_test``;
        x are uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3, y are labels 0
        to classes - 1, [N] or [N, 1].
    path : str
        The path; ``~`` is the home folder.

    Raises
    ------
    DataError
        If the kind is unknown, or the data is missing or in another form.
    """
    from datasets.own_folder import folder_spec
    from datasets.own_npz import npz_spec

    makers = {"folder": folder_spec, "npz": npz_spec}
    if kind not in makers:
        raise DataError(
            f"unknown dataset '{kind}:{path}': {closest(kind, makers)}, followed by :PATH"
        )
    if not path:
        raise DataError(f"dataset '{kind}:': no path given, {kind}:PATH is right")
    return makers[kind](f"{kind}:{path}", Path(path).expanduser())
