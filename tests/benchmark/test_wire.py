from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from benchmark.contract import Broadcast, Message, Upload
from benchmark.errors import UserError
from benchmark.spool import InMemory
from benchmark.wire import WireError, account, decode, elements, encode, view

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    # Bits, so that NaN equals NaN and -0 differs from 0.
    return (
        first.contiguous()
        .flatten()
        .view(torch.uint8)
        .equal(second.contiguous().flatten().view(torch.uint8))
    )


def example() -> Upload:
    numbers = torch.arange(96, dtype=torch.float32).reshape(2, 3, 4, 4)
    return Upload(
        parts={
            "model": {
                "conv.weight": numbers.to(memory_format=torch.channels_last),
                "bn.num_batches_tracked": torch.tensor(7),
                "mask": torch.tensor([True, False, True]),
            },
            "counts": {"label": torch.tensor([1, 0, 5])},
        },
        values={"seconds": 1.5, "names": ["ä", 'with "quotes"'], "none": None, "flag": True},
    )


def test_round_trip_keeps_parts_tensors_and_values() -> None:
    message = example()
    back = decode(encode(message), Upload)
    assert type(back) is Upload
    assert set(back.parts) == {"model", "counts"}
    for part, tensors in message.parts.items():
        assert set(back.parts[part]) == set(tensors)
        assert all(same(back.parts[part][name], tensors[name]) for name in tensors)
    assert back.values == message.values
    assert back.parts["model"]["conv.weight"].is_contiguous()


tensors = st.builds(
    lambda dtype, shape, seed: torch.randint(
        0, 100, shape, generator=torch.Generator().manual_seed(seed)
    ).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=4),
    st.integers(0, 9),
)
names = st.text(min_size=1, max_size=6).filter(lambda name: name.isprintable())
parts = names.filter(lambda name: "/" not in name and name not in ("values", "header"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip
messages = st.builds(
    lambda found, values: Broadcast(parts=found, values=values),
    st.dictionaries(parts, st.dictionaries(names, tensors, max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=4), json_values, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(messages)
def test_any_message_survives_and_every_byte_is_booked(message: Broadcast) -> None:
    data = encode(message)
    back = decode(data, Broadcast)
    assert back.values == message.values
    assert {part: set(found) for part, found in back.parts.items()} == {
        part: set(found) for part, found in message.parts.items()
    }
    for part, found in message.parts.items():
        assert all(same(back.parts[part][name], tensor) for name, tensor in found.items())
    booked = account(message, data)
    assert sum(booked.values()) == len(data)
    assert all(count >= 0 for count in booked.values())
    assert encode(back) == data


@settings(max_examples=60, deadline=None)
@given(messages)
def test_a_view_of_bytes_at_rest_is_the_decoded_message(message: Broadcast) -> None:
    data = encode(message)
    whole, seen = decode(data, Broadcast), view(InMemory(data), Broadcast)
    assert seen.values == whole.values
    assert [*seen.parts] == [*whole.parts]
    for part, found in whole.parts.items():
        assert [*seen.parts[part]] == [*found]
        assert all(same(seen.parts[part][name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint16, torch.uint32, torch.uint64,
                                   torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
                                   torch.float8_e5m2fnuz], ids=str)  # fmt: skip
def test_every_type_that_crosses_can_be_viewed(dtype: torch.dtype) -> None:
    sent = torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8).to(dtype)
    message = Upload({"p": {"t": sent, "scalar": sent[0, 1], "none": sent[:0]}})
    seen = view(InMemory(encode(message)), Upload).parts["p"]
    assert all(same(seen[name], tensor) for name, tensor in message.parts["p"].items())


def test_bytes_by_part_are_those_of_the_tensors() -> None:
    message = example()
    booked = account(message, encode(message))
    assert booked["model"] == 96 * 4 + 8 + 3
    assert booked["counts"] == 3 * 8
    assert 0 < booked["values"] < 120
    assert 0 < booked["header"] < 1000


@settings(max_examples=40, deadline=None)
@given(messages)
def test_bytes_of_a_part_have_their_closed_form(message: Broadcast) -> None:
    booked = account(message, encode(message))
    counts = elements(message)
    assert counts.keys() == message.parts.keys()
    for part, kinds in counts.items():
        expected = sum(getattr(torch, kind).itemsize * n for kind, n in kinds.items())
        assert booked[part] == expected


def test_an_empty_message_costs_nothing() -> None:
    assert encode(Broadcast()) == b""
    assert decode(b"", Broadcast) == Broadcast()
    assert account(Broadcast(), b"") == {"values": 0, "header": 0}


def test_the_order_of_insertion_changes_no_byte() -> None:
    message = example()
    turned = Upload(
        parts={part: dict(reversed(found.items())) for part, found in message.parts.items()},
        values=dict(reversed(message.values.items())),
    )
    assert encode(turned) == encode(message)


def test_decoded_tensors_share_no_memory() -> None:
    mine = torch.ones(4)
    data = encode(Upload(parts={"model": {"weight": mine}}))
    theirs = decode(data, Upload).parts["model"]["weight"]
    theirs.add_(1)
    mine.zero_()
    assert decode(data, Upload).parts["model"]["weight"].tolist() == [1, 1, 1, 1]
    assert theirs.tolist() == [2, 2, 2, 2]


def test_shared_memory_views_and_gradients_cross() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    parameter = torch.nn.Parameter(base.clone())
    message = Upload(parts={"a": {"x": base, "y": base, "t": base.t(), "p": parameter}})
    back = decode(encode(message), Upload).parts["a"]
    assert same(back["x"], base)
    assert same(back["y"], base)
    assert same(back["t"], base.t())
    assert same(back["p"], parameter.detach())
    assert not back["p"].requires_grad


@pytest.mark.long
def test_bytes_are_the_same_in_another_process() -> None:
    script = (
        "import hashlib, test_wire; from benchmark.wire import encode;"
        "print(hashlib.sha256(encode(test_wire.example())).hexdigest())"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": path}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == hashlib.sha256(encode(example())).hexdigest()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"model": {}}, "expected an Upload or a Broadcast, got dict"),
        (None, "expected an Upload or a Broadcast, got NoneType"),
        (Upload(parts=[1]), "parts must be a mapping, got list"),
        (Upload(parts={"a/b": {}}), "the name of part 'a/b' must not contain a slash"),
        (Upload(parts={"": {}}), "'' is no name of a part"),
        (Upload(parts={3: {}}), "3 is no name of a part"),
        (Upload(parts={"values": {}}), "a part can't be called 'values'"),
        (Upload(parts={"model": torch.ones(2)}), "part 'model' must map names to tensors"),
        (Upload(parts={"model": {1: torch.ones(2)}}), "part 'model': 1 is no name of a tensor"),
        (Upload(parts={"m": {"w": np.ones(2)}}), "'m/w' must be a tensor, got numpy.ndarray"),
        (Upload(parts={"m": {"w": [1.0]}}), "'m/w' must be a tensor, got list"),
        (Upload(parts={"m": {"w": torch.ones(2).to_sparse()}}), "'m/w' must be a dense tensor"),
        (Upload(parts={"m": {"w": torch.ones(2) * 1j}}), "'m/w' must hold real numbers"),
        (Upload(parts={"m": {"w": torch.ones(2, device="meta")}}), "must be a dense tensor"),
        (Upload(values=[1]), "values must be a mapping, got list"),
        (Upload(values={"a": {"b": float("nan")}}), "values.a.b is nan"),
        (Upload(values={"a": [1, float("inf")]}), "values.a[1] is inf"),
        (Upload(values={"a": {1: 2}}), "values.a: keys must be text, got 1"),
        (Upload(values={"a": torch.ones(1)}), "values.a must be a JSON value, got torch.Tensor"),
        (Upload(values={"a": np.float32(1)}), "values.a must be a JSON value, got numpy.float32"),
    ],
)  # fmt: skip
def test_what_cant_cross_is_named(message: Message, says: str) -> None:
    with pytest.raises(WireError) as caught:
        encode(message, "upload of client 3 (mine)")
    assert str(caught.value).startswith("upload of client 3 (mine)")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("cut", [1, 7, 8, 40, -1, -20])
def test_bytes_that_are_no_message_are_refused(cut: int) -> None:
    with pytest.raises(WireError, match="are no message"):
        decode(encode(example())[:cut], Upload)


def pairs() -> bytes:
    tensors = {"a": torch.tensor([1, 2], dtype=torch.uint8), "b": torch.ones(2, 3)}
    return encode(Upload({"p": tensors}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data + b"x", "the last tensor ends at"),
        (lambda data: data.replace(b"[24,26]", b"[0,2]  "), "expected is"),  # both at one place
        (lambda data: data.replace(b"[24,26]", b"[25,27]"), "expected is"),  # a byte between
        (lambda data: data.replace(b"[2,3]", b"[3,3]"), "is not at"),
        (lambda data: data.replace(b"[2,3]", b"[-2,-3]"), "are no message"),
        (lambda data: data.replace(b"[2,3]", b"[1.5,4]"), "are no message"),
        (lambda data: data.replace(b'"F32"', b'"X99"'), "there is no type 'X99'"),
        (lambda data: data.replace(b'"p/a"', b'"p/b"'), "are no message"),
    ],
)
def test_a_broken_container_is_refused_wherever_it_is_opened(
    damage: Callable[[bytes], bytes], says: str
) -> None:
    data = damage(pairs())
    assert data != pairs()
    for opened in (lambda: decode(data, Upload, "x"), lambda: view(InMemory(data), Upload, "x")):
        with pytest.raises(WireError, match=says) as caught:
            opened()
        assert str(caught.value).startswith(f"x: these {len(data)} bytes are no message: ")
