"""Uploads at rest: what is read is what was sent, wherever it waited, and nothing stays behind."""

from __future__ import annotations

import gc
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark import spool as spooling
from benchmark.contract import Upload
from benchmark.spool import InMemory, OnDisk, Spool
from benchmark.store import StoreError
from benchmark.testing import Bench
from benchmark.wire import WireError, encode, view

PLACES = {"memory": 2**20, "disk": 0}


def message(value: float = 1.0) -> Upload:
    return Upload(
        {
            "model": {"w": torch.full((3, 5), value), "n": torch.tensor(7)},
            "mask": {"m": torch.tensor([True, False, True])},
            "empty": {},
        },
        {"samples": 3},
    )


@pytest.fixture(params=list(PLACES))
def arrived(request: pytest.FixtureRequest, tmp_path: Path) -> Upload:
    source = Spool(tmp_path, PLACES[request.param]).put(encode(message()))
    assert isinstance(source, OnDisk if request.param == "disk" else InMemory)
    return view(source, Upload)


def test_every_look_is_fresh_aligned_and_the_same(arrived: Upload) -> None:
    model = arrived.parts["model"]
    first, second = model["w"], model["w"]
    assert first.data_ptr() != second.data_ptr()
    # As torch's own tensors are; elsewhere BLAS may take another road, in other bits.
    assert first.data_ptr() % 64 == 0
    first.zero_()
    assert torch.equal(second, torch.ones(3, 5))
    assert torch.equal(model["w"], torch.ones(3, 5))
    assert first.is_contiguous()
    assert first.dtype == torch.float32


def test_a_part_is_a_mapping_of_names_in_order(arrived: Upload) -> None:
    assert list(arrived.parts) == ["empty", "mask", "model"]
    model = arrived.parts["model"]
    assert list(model) == ["n", "w"]
    assert (len(model), "w" in model, "x" in model) == (2, True, False)
    assert len(arrived.parts["empty"]) == 0
    assert dict(model)["n"] == 7
    assert arrived.parts["mask"]["m"].tolist() == [True, False, True]
    assert arrived.values == {"samples": 3}
    with pytest.raises(KeyError):
        model["x"]
    assert encode(arrived) == encode(message())


def test_memory_is_given_back_and_the_rest_goes_to_the_disk(tmp_path: Path) -> None:
    data = encode(message())
    spool = Spool(tmp_path, in_memory=2 * len(data))
    kept = [spool.put(data) for _ in range(4)]
    assert [type(source) for source in kept] == [InMemory, InMemory, OnDisk, OnDisk]
    assert all(encode(view(source, Upload)) == data for source in kept)
    kept.clear()
    gc.collect()
    assert isinstance(spool.put(data), InMemory)


def test_uploads_of_a_round_share_a_file_that_closes_with_the_last_of_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, in_memory=0)
    first, second = (spool.put(encode(message(value)), 0) for value in (1.0, 2.0))
    third = spool.put(encode(message(3.0)), 1)
    assert isinstance(first, OnDisk)
    assert isinstance(second, OnDisk)
    assert isinstance(third, OnDisk)
    assert first.file is second.file
    assert first.file is not third.file
    file = weakref.ref(first.file)
    del first
    assert torch.equal(view(second, Upload).parts["model"]["w"], torch.full((3, 5), 2.0))
    del second
    gc.collect()
    assert file() is None
    assert torch.equal(view(third, Upload).parts["model"]["w"], torch.full((3, 5), 3.0))


def test_nothing_can_be_read_where_a_page_and_the_file_end(tmp_path: Path) -> None:
    data = bytes(range(256)) * (mmap.ALLOCATIONGRANULARITY // 256)
    source = Spool(tmp_path, in_memory=0).put(data)
    assert isinstance(source, OnDisk)
    for place in (0, 100, len(data)):
        nothing = source.read(place, place)
        assert (nothing.dtype, nothing.shape) == (torch.uint8, (0,))
    assert source.read(len(data) - 2, len(data)).tolist() == [254, 255]


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't lose their names there")
def test_what_is_on_the_disk_has_no_name(tmp_path: Path) -> None:
    source = Spool(tmp_path / "made", in_memory=0).put(encode(message()))
    assert list((tmp_path / "made").iterdir()) == []
    assert isinstance(source, OnDisk)
    assert os.fstat(source.file.fileno()).st_size == len(source)


def test_a_place_that_cant_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    with pytest.raises(StoreError, match="can't write"):
        Spool(tmp_path / "file", in_memory=0).put(b"x")


@pytest.mark.parametrize("limit", PLACES.values(), ids=PLACES)
def test_damaged_bytes_are_refused_before_a_tensor_is_read(limit: int, tmp_path: Path) -> None:
    data, spool = encode(message()), Spool(tmp_path, limit)
    for cut in (1, 7, 8, 30, len(data) - 1):
        with pytest.raises(WireError, match=r"upload of client 3: these \d+ bytes are no message"):
            view(spool.put(data[:cut]), Upload, "upload of client 3")
    for old, new in ((b'"F32"', b'"X99"'), (b"[3,5]", b"[3,6]"), (b"{", b"[")):
        with pytest.raises(WireError, match="are no message"):
            view(spool.put(data.replace(old, new, 1)), Upload)
    assert view(spool.put(b""), Upload) == Upload()


SMALL = {"generator_width": 2, "generator_discriminator_width": 2, "meta_feedforward": 16}


def run(name: str, folder: Path, **overrides: Any) -> dict[str, Tensor]:
    budget = {"generator_steps": 4, "generated_images": 32, "distilled_images": 64}
    settings = {"train_samples": 150, "epochs": 1, **budget, **overrides}
    return Bench(name, settings, folder=folder).run().output.model.state_dict()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("fedavg", {"set": {"fedavg": {"rounds": 2, "label_head": True}}}),
        ("fedrolex", {"widths": ["1/4,1/8"], "set": {"fedrolex": {"rounds": 2}}}),
        ("mosaic", {"widths": ["1/4,1/8"], "set": {"mosaic": SMALL}}),
        ("dense", {}),
    ],
)
def test_where_uploads_wait_changes_no_bit(
    name: str,
    overrides: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    in_memory = run(name, folder, **overrides)
    made: list[OnDisk] = []
    put = Spool.put

    def on_disk(self: Spool, data: bytes, round_index: int = 0) -> Any:
        self._limit = 0
        made.append(put(self, data, round_index))
        assert isinstance(made[-1], OnDisk)
        return made[-1]

    monkeypatch.setattr(spooling.Spool, "put", on_disk)
    from_disk = run(name, folder, **overrides)
    assert made
    assert all(torch.equal(value, from_disk[key]) for key, value in in_memory.items())
