"""Random streams: named by what they are for, never by when they are asked for."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.seeds import Streams, seeded_global

ROOT = Path(__file__).resolve().parents[2]

names = st.tuples(
    st.integers(0, 2**32),
    st.none() | st.sampled_from(["fedavg", "dense", "1", ""]),
    st.sampled_from(["train", "warm-up", "partition", "0", "null"]),
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 50),
)
Name = tuple[int, str | None, str, int | None, int | None]


def integer(name: Name) -> int:
    seed, method, purpose, client, round_index = name
    return Streams(seed, method).integer(purpose, client=client, round=round_index)


def test_pinned_streams() -> None:
    # These are the suite's chance: a change makes every published number another one.
    assert Streams(0).integer("partition") == 400837779321727464
    assert Streams(3, "dense").integer("noise", client=2, round=1) == 6481709499613924683


@settings(max_examples=200, deadline=None)
@given(names, names)
def test_streams_are_equal_exactly_if_their_names_are(first: Name, second: Name) -> None:
    assert (integer(first) == integer(second)) == (first == second)
    assert 0 <= integer(first) < 2**63


def test_every_part_of_the_name_counts() -> None:
    seeds = itertools.product(
        (0, 1), (None, "a", "b"), ("train", "warm-up"), (None, 0, 1), (None, 0, 1)
    )
    streams = [integer(name) for name in seeds]
    assert len(set(streams)) == len(streams) == 2 * 3 * 2 * 3 * 3


def test_no_order_counts() -> None:
    streams = Streams(5)
    purposes = ["a", "b", "c"]
    forward = {name: streams.torch(name).initial_seed() for name in purposes}
    for name in purposes:
        torch.rand(3, generator=streams.torch(name))
    backward = {name: streams.torch(name).initial_seed() for name in reversed(purposes)}
    assert forward == backward


def test_each_call_gives_a_fresh_generator() -> None:
    first, second = (torch.rand(4, generator=Streams(1).torch("x")) for _ in range(2))
    assert torch.equal(first, second)
    numbers = [Streams(1).numpy("x").random(4) for _ in range(2)]
    assert np.array_equal(*numbers)
    assert not torch.equal(first, torch.rand(4, generator=Streams(1).torch("y")))


def test_client_streams_leave_the_method_out() -> None:
    shared = Streams(7).integer("train", client=1, round=0)
    assert Streams(7, None).integer("train", client=1, round=0) == shared
    own = {Streams(7, name).integer("train", client=1, round=0) for name in ("fedavg", "dense")}
    assert len(own) == 2
    assert shared not in own


def test_another_process_and_hash_seed_agree() -> None:
    code = "from benchmark.seeds import Streams; print(Streams(9, 'm').integer('p', client=1))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "99"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == Streams(9, "m").integer("p", client=1)


def test_the_global_stream_is_lent_and_put_back() -> None:
    before = torch.get_rng_state()
    with seeded_global(Streams(1).torch("x")):
        first = torch.rand(5)
        assert not torch.equal(before, torch.get_rng_state())
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    with seeded_global(Streams(1).torch("x")):
        assert torch.equal(first, torch.rand(5))
    with seeded_global(Streams(1).torch("y")):
        assert not torch.equal(first, torch.rand(5))


def test_the_global_stream_is_put_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded_global(Streams(1).torch("x")):
        torch.rand(5).view(3)
    assert torch.equal(before, torch.get_rng_state())


def test_lending_takes_one_number_of_the_stream() -> None:
    lent, plain = Streams(1).torch("x"), Streams(1).torch("x")
    with seeded_global(lent):
        torch.rand(100)
    torch.randint(2**62, (1,), generator=plain)
    assert torch.equal(torch.rand(3, generator=lent), torch.rand(3, generator=plain))


def test_only_the_streams_that_are_put_back_are_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("seeds every device, and fork_rng puts back the CPU alone")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    before = torch.get_rng_state()
    with seeded_global(Streams(1).torch("x")):
        torch.rand(1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("device", [None, torch.device("cpu"), torch.device("cuda", 1)])
def test_the_stream_where_code_computes_is_lent_too(
    device: torch.device | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked: list[torch.device] = []
    seeded: list[tuple[torch.device, int]] = []
    fork = torch.random.fork_rng

    @contextmanager
    def fork_rng(devices: list[torch.device]) -> Iterator[None]:
        forked.extend(devices)
        with fork(devices=[]):
            yield

    @contextmanager
    def entered(device: torch.device) -> Iterator[None]:
        patch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((device, seed)))
        yield

    with monkeypatch.context() as patch:
        patch.setattr(torch.random, "fork_rng", fork_rng)
        patch.setattr(torch.cuda, "device", entered)
        with seeded_global(Streams(1).torch("x"), device):
            first, seed = torch.rand(5), torch.initial_seed()
    cuda = [device] if device is not None and device.type == "cuda" else []
    assert forked == cuda
    assert seeded == [(place, seed) for place in cuda]
    with seeded_global(Streams(1).torch("x")):
        assert torch.equal(first, torch.rand(5)), "the CPU's numbers are the same with and without"
