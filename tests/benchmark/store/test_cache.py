from __future__ import annotations

import errno
import logging
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from benchmark.executor import Job, PoolExecutor
from benchmark.store import Cache, StoreError

WHAT = {"dataset": "abc", "client": 3, "recipe": {"lr": 0.01}}


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(24.0).reshape(1, 2, 3, 4)
    return {
        "z": torch.tensor(3),
        "a": shared.to(memory_format=torch.channels_last),
        "b": shared,
        "c": shared,
        "d": torch.tensor([True, False]),
        "e": torch.ones(2, dtype=torch.bfloat16).requires_grad_(),
    }


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_an_entry_is_the_same_from_disk_and_made_just_now(cache: Cache, tmp_path: Path) -> None:
    stored = cache.put("models", WHAT, tensors(), {"seconds": 1.5, "pair": (1, 2)})
    passing = Cache(tmp_path / "none", disabled=True).put(
        "models", WHAT, tensors(), {"seconds": 1.5, "pair": (1, 2)}
    )
    assert stored.info == passing.info == {"seconds": 1.5, "pair": [1, 2]}
    first, second = stored.load(), passing.load()
    assert list(first) == list(second) == sorted(tensors())
    for name, tensor in tensors().items():
        for loaded in (first[name], second[name]):
            assert torch.equal(loaded, tensor)
            assert loaded.dtype == tensor.dtype
            assert loaded.stride() == tensor.contiguous().stride()
            assert not loaded.requires_grad
    assert not (tmp_path / "none").exists()
    first["b"].zero_()
    assert torch.equal(stored.load()["b"], tensors()["b"])


def test_the_key_is_the_description_and_nothing_else(cache: Cache) -> None:
    cache.put("models", WHAT, tensors())
    assert cache.get("models", dict(reversed(WHAT.items()))) is not None
    assert cache.get("models", {**WHAT, "client": 4}) is None
    assert cache.get("features", WHAT) is None
    with pytest.raises(TypeError, match="is no JSON value"):
        cache.get("models", {"a": object()})
    with pytest.raises(ValueError, match="is no kind of artifact"):
        cache.get("../models", WHAT)


def test_it_is_made_once_and_failures_are_not_kept(cache: Cache) -> None:
    calls: list[int] = []

    def fail() -> Any:
        calls.append(0)
        raise RuntimeError("diverged")

    def make() -> Any:
        calls.append(1)
        return tensors(), {"seconds": 2}

    for _ in range(2):
        with pytest.raises(RuntimeError, match="diverged"):
            cache.get_or_make("models", WHAT, fail)
    for _ in range(3):
        assert cache.get_or_make("models", WHAT, make).info == {"seconds": 2}
    assert calls == [0, 0, 1]


def test_a_disabled_cache_neither_reads_nor_writes(cache: Cache) -> None:
    cache.put("models", WHAT, tensors(), {"from": "disk"})
    disabled = Cache(cache.root, disabled=True)
    assert disabled.get("models", WHAT) is None
    made = disabled.get_or_make("models", WHAT, lambda: (tensors(), {"from": "maker"}))
    assert made.info == {"from": "maker"}
    found = cache.get("models", WHAT)
    assert found is not None
    assert found.info == {"from": "disk"}


@pytest.mark.parametrize("name", ["data.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip first", "flip middle", "flip last", "cut", "missing"])
def test_a_damaged_entry_is_reported_and_made_again(
    cache: Cache, caplog: pytest.LogCaptureFixture, name: str, harm: str
) -> None:
    entry = cache.put("models", WHAT, tensors())
    assert entry.path is not None
    path = entry.path / name
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 3])
    else:
        end = len(data) - 2 - data.endswith(b"\n}\n")
        place = {"flip first": 0, "flip middle": len(data) // 2, "flip last": end}[harm]
        data[place] ^= 16
        path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        made = cache.get_or_make("models", WHAT, lambda: (tensors(), {"again": True}))
    assert "is damaged" in caplog.text
    assert made.info == {"again": True}
    assert torch.equal(made.load()["b"], tensors()["b"])
    assert list((cache.root / ".tmp").iterdir()) == []


def test_an_entry_that_stands_there_is_kept(cache: Cache) -> None:
    cache.put("models", WHAT, tensors(), {"number": 1})
    assert cache.put("models", WHAT, tensors(), {"number": 2}).info == {"number": 1}


def test_an_entry_in_the_wrong_place_is_not_taken(cache: Cache) -> None:
    entry = cache.put("models", WHAT, tensors())
    assert entry.path is not None
    other = {**WHAT, "client": 5}
    key = cache.key(other)
    target = cache.root / "models" / key[:2] / key
    target.parent.mkdir(parents=True, exist_ok=True)
    entry.path.rename(target)
    assert cache.get("models", other) is None


def test_sizes_and_removal_by_kind(cache: Cache) -> None:
    assert cache.sizes() == {}
    cache.put("models", WHAT, tensors())
    cache.put("features", WHAT, tensors())
    sizes = cache.sizes()
    assert set(sizes) == {"models", "features"}
    assert cache.remove("models") == sizes["models"] > 0
    assert set(cache.sizes()) == {"features"}
    cache.remove("features")
    assert cache.sizes() == {}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_one_line_and_nothing_is_left(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    def fail(flat: object, path: Path) -> None:
        path.write_bytes(b"part of it")
        text = "I/O error: No space left on device (os error 28)"
        raise SafetensorError(text) if wrapped else OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(StoreError, match="the disk is full") as caught:
        cache.put("models", WHAT, tensors())
    assert str(cache.root) in str(caught.value)
    assert list((cache.root / ".tmp").iterdir()) == []
    assert cache.get("models", WHAT) is None


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't write .*file"):
        Cache(tmp_path / "file" / "cache").get_or_make("models", WHAT, lambda: (tensors(), {}))


@pytest.mark.usefixtures("fork_server")
def test_of_two_processes_one_makes_it(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "made"
    results: list[Any] = []

    def work() -> None:
        job = Job("0" * 16, {"root": str(cache.root), "log": str(log)})
        (outcome,) = PoolExecutor("store_targets:make_cached").run([job])
        results.append(outcome.result)

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text() == "made\n"
    assert results[0] == results[1]
    assert results[0]["sum"] == 6.0


def test_a_really_full_disk_damages_no_entry(tiny_disk: Path) -> None:
    cache = Cache(tiny_disk / "cache")
    cache.put("models", WHAT, tensors())
    large = {"x": torch.zeros(100_000)}
    with pytest.raises(StoreError, match=r"tiny.*: the disk is full") as caught:
        cache.put("models", {"large": True}, large)
    assert "\n" not in str(caught.value)
    assert list((cache.root / ".tmp").iterdir()) == []
    assert cache.get("models", {"large": True}) is None
    found = cache.get("models", WHAT)
    assert found is not None
    assert torch.equal(found.load()["b"], tensors()["b"])
