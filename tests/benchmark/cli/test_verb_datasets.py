"""``datasets``: what is there, what is missing, fetching and preparing."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import output, verb_datasets
from benchmark.cli.main import USER_ERROR
from benchmark.errors import UserError
from datasets import DataError, catalog, places, source_mnist
from datasets.fetching import Remote

NAMES = [f"{name}.gz" for name in source_mnist._FILES]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a small MNIST from this machine, and hide all other data; give the data root."""
    monkeypatch.delenv(places.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(places, "user_data_root", lambda: tmp_path / "user")
    site = tmp_path / "site"
    site.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in zip(NAMES, ((20, 28, 28), (20,), (10, 28, 28), (10,)), strict=True):
        limit = 256 if len(shape) == 3 else 10
        values = rng.integers(0, limit, shape, dtype=np.uint8)
        head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (site / name).write_bytes(gzip.compress(head + values.tobytes()))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        remotes = tuple(
            Remote(
                name,
                (f"http://127.0.0.1:{server.server_port}/{name}",),
                hashlib.md5((site / name).read_bytes()).hexdigest(),
                (site / name).stat().st_size,
            )
            for name in NAMES
        )
        spec = dataclasses.replace(
            catalog.specs()["mnist"],
            download=partial(source_mnist._download, remotes, "MNIST/raw"),
        )
        monkeypatch.setitem(catalog.specs(), "mnist", spec)
        yield tmp_path / "root"
        server.shutdown()
        thread.join()


def call(*argv: object) -> int:
    values = verb_datasets.parser().read([str(item) for item in argv])
    return verb_datasets.execute(values, output.stderr())


def test_overview(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--data-root", mnist) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert set(catalog.specs()) <= {name.rstrip(":") for name in rows}
    assert "found in" in rows["digits"]
    assert "75750 + 25250" in shown
    assert "5.0 GB" in rows["food101"]
    assert "missing" in shown
    assert "svhn: give a data root that holds train_32x32.mat" in shown
    last = shown.splitlines()[-1]
    assert last.startswith("all of it: python -m benchmark datasets fetch cifar10 cifar100")
    assert f"--data-root {mnist}" in last
    assert "digits" not in last


def test_facts(capsys: pytest.CaptureFixture[str], mnist: Path, tmp_path: Path) -> None:
    assert call("show", "svhn", "fashion_mnist") == 0
    shown = capsys.readouterr().out
    assert "random crop, padding 4, at 32 pixels" in shown
    assert "mirroring; published code mirrors" in shown
    assert "normalised with its own moments" in shown
    for kind, label in (("a", 0), ("b", 1)):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for number in range(5):
            picture = io.BytesIO()
            from PIL import Image

            Image.new("L", (5, 5), 50 * label + number).save(picture, "PNG")
            (tmp_path / "own" / kind / f"{number}.png").write_bytes(picture.getvalue())
    assert call("show", f"folder:{tmp_path / 'own'}") == 0
    shown = capsys.readouterr().out
    assert "8 training, 2 test" in shown
    assert "measured on the training part" in shown


def test_fetch(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fetch", "mnist", "digits", "--data-root", mnist) == 0
    said = capsys.readouterr().out
    assert f"mnist: fetched into {mnist / 'MNIST' / 'raw'}" in said
    assert "digits: is there already" in said
    assert sorted(path.name for path in (mnist / "MNIST" / "raw").iterdir()) == sorted(NAMES)
    assert call("fetch", "mnist", "--data-root", mnist) == 0
    assert "is there already" in capsys.readouterr().out


def test_fetch_goes_on_and_one_failure_stops_no_other(
    mnist: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path, progress: object) -> None:
        raise DataError("no such host")

    for name in ("svhn",):
        spec = dataclasses.replace(catalog.specs()[name], download=refuse)
        monkeypatch.setitem(catalog.specs(), name, spec)
    assert call("fetch", "svhn", "mnist", "--data-root", mnist) == USER_ERROR
    said = capsys.readouterr()
    assert said.err.count("error:") == 1
    assert "no such host" in said.err
    assert "mnist: fetched" in said.out


def test_prepare_fills_the_cache_that_runs_read(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    places_of = ("--data-root", mnist, "--results", results)
    assert call("prepare", "mnist", "--image-size", 32, 64, *places_of) == 0
    assert "32x32: 30.7 kB" in capsys.readouterr().out
    entries = sorted((results / ".cache" / "data").glob("mnist-*"))
    assert [entry.name.split("-")[1] for entry in entries] == ["32px", "64px"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("fetch",), "no name given; known: cifar10"),
        (("prepare",), "no name given"),
        (("fetch", "cifar"), "unknown dataset 'cifar': did you mean 'cifar100?'"),
        (("fetsch", "cifar10"), "unknown action 'fetsch'; did you mean 'fetch'"),
        (("prepare", "digits", "--image-size", "48"), "unknown image size '48'"),
        (("show", "npz:/nowhere"), "does not exist"),
    ],
)
def test_mistakes(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises((UserError, DataError), match=message):
        call(*argv)
