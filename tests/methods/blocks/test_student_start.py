"""What students start from, against averages made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.contract import Upload
from benchmark.federation.server import ServerContext
from benchmark.specs import BudgetSpec
from benchmark.testing import Bench
from methods.blocks.student_start import starting_model

SIZES = torch.tensor([1.0, 2.0, 5.0])


def drawn_uploads(server: ServerContext) -> dict[int, Upload]:
    uploads = {}
    for info in server.clients:
        random = torch.Generator().manual_seed(info.index)
        state = {
            name: torch.rand(value.shape, generator=random) if value.is_floating_point() else value
            for name, value in server.initial_model(info.width).state_dict().items()
        }
        uploads[info.index] = Upload({"model": state}, {"samples": int(SIZES[info.index])})
    return uploads


@pytest.mark.parametrize("widths", ["1/8", "1/2,1/4,1/8"])
def test_an_aggregate_weighs_clients_by_samples_and_has_the_largest_width(
    tmp_path: Path, widths: str
) -> None:
    federation = Bench("dense", {"widths": [widths]}, tmp_path).federation()
    server = federation.server("dense", 1, BudgetSpec())
    uploads = drawn_uploads(server)
    model = starting_model(server, uploads, "aggregate")
    full = server.initial_model().state_dict()
    assert {n: v.shape for n, v in model.state_dict().items()} == {
        n: v.shape for n, v in full.items()
    }
    # Every client holds the whole bias of the head, whatever its width.
    biases = torch.stack([uploads[index].parts["model"]["head.bias"] for index in range(3)])
    expected = (SIZES[:, None] * biases).sum(0) / SIZES.sum()
    torch.testing.assert_close(model.state_dict()["head.bias"], expected)
    assert model.training
    fresh = starting_model(server, uploads, "random").state_dict()
    assert torch.equal(fresh["head.bias"], server.new_model("student").state_dict()["head.bias"])
