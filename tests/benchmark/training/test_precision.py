from __future__ import annotations

import pytest
import torch

from benchmark.errors import UserError
from benchmark.specs import ComputeSpec
from benchmark.training import precision
from benchmark.training.precision import (
    autocast,
    configure_device,
    configure_threads,
    limited_threads,
    resolve_device,
    resolve_precision,
)


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_exactly_where_it_gains(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: fast)
    assert resolve_precision("auto", "cpu") == expected


def test_fp32_is_never_changed() -> None:
    assert resolve_precision("fp32", "cpu") == "fp32"


def test_emulated_bf16_is_allowed_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    with pytest.warns(UserWarning, match="emulated"):
        assert resolve_precision("bf16", "cpu") == "bf16"


def test_a_pytorch_without_the_probes_means_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert resolve_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_on_cuda_the_compute_capability_decides(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", "cuda") == expected


def test_unknown_names_are_refused_with_the_closest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'bf16'"):
        resolve_precision("bf61", "cpu")
    with pytest.raises(UserError, match="did you mean 'cuda'"):
        resolve_device("cudda")


@pytest.mark.parametrize("present", [True, False])
def test_devices(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if present else "cpu")
    if present:
        assert resolve_device("cuda").type == "cuda"
    else:
        with pytest.raises(UserError, match="'cuda' is not available"):
            resolve_device("cuda")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_sets_the_type_of_products(name: str, dtype: torch.dtype) -> None:
    a = torch.ones(4, 4)
    with autocast(ComputeSpec(precision=name)):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


def test_threads_are_set_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    try:
        configure_threads(1)
        assert torch.get_num_threads() == 1
        with limited_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_repeatable_bits_do_not_cost_a_second_writing_of_every_tensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(False)  # an earlier test may have left them on
    try:
        configure_device("cpu")
        assert torch.are_deterministic_algorithms_enabled()
        fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        assert not fills
    finally:
        torch.use_deterministic_algorithms(kept)


def test_no_thread_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1, got 0"):
        configure_threads(0)
