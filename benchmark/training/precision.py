"""Device, threads and precision of a run: resolved once, then part of its id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor

from benchmark.errors import UserError, unknown
from benchmark.specs import ComputeSpec
from benchmark.training.memory import reuse_freed_memory

Precision = Literal["fp32", "bf16"]

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
FIRST_CUDA_WITH_BF16 = (8, 0)
"""Compute capability of the first GPUs (Ampere) with bf16 tensor cores; older ones emulate it."""
FIRST_CUDA_WITH_TRITON = (7, 0)
"""Compute capability of the first GPUs (Volta) that ``torch.compile`` can compile for."""


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device that a name stands for.

    Parameters
    ----------
    name : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one.

    Raises
    ------
    UserError
        If the name is unknown, or CUDA is asked for and absent.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available on this machine; use --device cpu")
    return torch.device(name)


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count]) if named else tuple(str(index) for index in range(count))


def has_fast_bf16(device: torch.device | str) -> bool:
    """Return whether the hardware computes in bf16, and faster than in fp32.

    On a CPU that takes AMX or AVX512-BF16 instructions, on CUDA compute capability 8.0.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= FIRST_CUDA_WITH_BF16
    if device.type != "cpu":
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    # The probes are not public: a PyTorch that drops one only loses the speed.
    return any(bool(getattr(torch.cpu, probe, _no)()) for probe in probes)


def _no() -> bool:
    return False


def resolve_precision(name: str, device: torch.device | str) -> Precision:
    """Return the precision that a name stands for on a device.

    Parameters
    ----------
    name : str
        ``"fp32"``, ``"bf16"`` or ``"auto"``: bf16 where :func:`has_fast_bf16`, else fp32.
    device : torch.device or str
        Where the run computes.

    Returns
    -------
    {"fp32", "bf16"}
        What belongs in the run's id; never ``"auto"``.

    Raises
    ------
    UserError
        If the name is unknown.

    Warns
    -----
    UserWarning
        If bf16 is asked for where it is emulated: right, but slower than fp32.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    fast = has_fast_bf16(device)
    if name == "auto":
        return "bf16" if fast else "fp32"
    if name == "bf16" and not fast:
        warnings.warn(
            f"precision 'bf16' is only emulated on this {torch.device(device).type} device, "
            "and slower than 'fp32'",
            UserWarning,
            stacklevel=2,
        )
    return cast("Precision", name)


def check_compiler(device: torch.device | str) -> None:
    """Check that ``torch.compile`` has what it needs.

    Raises
    ------
    UserError
        If there is no C++ compiler for a CPU; for CUDA, no Triton, or a GPU older than Volta.
    """
    device = torch.device(device)
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UserError("--compile: Triton is not installed; pip install triton")
        if torch.cuda.get_device_capability(device) < FIRST_CUDA_WITH_TRITON:
            raise UserError("--compile: needs a GPU of compute capability 7.0 or later")
    elif not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++")):
        raise UserError("--compile: no C++ compiler found; install g++, or name one in $CXX")


def autocast(compute: ComputeSpec, device: torch.device | str | None = None) -> torch.autocast:
    """Return the context in which forward passes run at a run's precision.

    Parameters
    ----------
    compute : ComputeSpec
        Holds the resolved precision.
    device : torch.device or str, optional
        Where the tensors are; that of ``compute`` if not given.
    """
    kind = torch.device(compute.device if device is None else device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=compute.precision == "bf16")


def configure_threads(threads: int) -> None:
    """Set the number of CPU threads of this process; results depend on it in their last bits.

    Also lets the process keep freed memory (:func:`benchmark.training.memory.reuse_freed_memory`).

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    UserError
        If it is below 1.
    """
    if threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    # For libraries that read it later, and for child processes.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    reuse_freed_memory()


def configure_device(device: torch.device | str) -> None:
    """Let a device repeat its bits, and fp32 be fp32; before its first use in this process.

    On CUDA an operation without a deterministic form only warns: it is no reason to lose a run.

    Parameters
    ----------
    device : torch.device or str
        Where this process computes.
    """
    on_cuda = torch.device(device).type == "cuda"
    torch.use_deterministic_algorithms(True, warn_only=on_cuda)
    # Else every new tensor is first filled with NaN, which takes time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if on_cuda:
        # cuBLAS reads it once, when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        # TF32 keeps 10 of fp32's 23 bits; convolutions use it unless told not to.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device, from the host to CUDA by way of pinned memory.

    The copy to CUDA overlaps with what the host does next; torch keeps the pinned memory until
    it is over. A copy from CUDA to the host is waited for.

    Parameters
    ----------
    tensor : Tensor
        Anywhere; itself is returned if it is there already.
    device : torch.device or str
        Where to.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Compute with ``threads`` CPU threads inside the context, then as before."""
    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
