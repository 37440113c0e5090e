"""Does Mosaic's generator learn? Its distance to real images over its training.

``python -m benchmark.studies.generator_curve`` trains one generator on a dataset's whole
training set, or on a stratified part as large as one client's (``--samples``), as one client
would, and stops every so often to compare what it draws with real images, in the features of
the suite's classifier: the Fréchet distance as a ratio to the one between real training and
real test images. Writes ``curve.csv``, ``curve.png`` and a sample grid of each stop.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmark.contract import Generated
from benchmark.errors import UserError
from benchmark.events import Events
from benchmark.federation.data import ScenarioData, load_scenario_data
from benchmark.federation.federation import Federation
from benchmark.generation import GenerationMeter
from benchmark.pictures import picture
from benchmark.specs import ComputeSpec, ScenarioSpec
from benchmark.store import Cache
from benchmark.training.precision import (
    configure_device,
    configure_threads,
    resolve_device,
    resolve_precision,
)
from datasets import DataError, PartitionError
from methods.blocks.pool import quantise
from methods.mosaic.gan_trainer import GanTrainer
from methods.mosaic.sampling import sample_unit
from methods.mosaic.settings import GeneratorSettings

COLUMNS = ("step", "fid", "fid_over_real", "inception_score", "precision", "recall", "usefulness")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and print a line for each stop; return the exit status.

    What the user can mend is one line on stderr and status 2, as on the suite's command line.
    """
    try:
        return _study(_parser().parse_args(arguments))
    except (UserError, DataError, PartitionError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _study(values: argparse.Namespace) -> int:
    device = resolve_device(values.device)
    precision = resolve_precision(values.precision, device)
    how = {"device": device.type, "precision": precision, "threads": values.threads}
    compute = ComputeSpec.parse(how, "study")
    configure_threads(values.threads)
    configure_device(device)
    scenario = ScenarioSpec.parse(
        {
            "dataset": values.dataset,
            "train_samples": values.samples,
            "partition": {"clients": 1, "scheme": "iid"},
            "widths": ["1/2"],
            "recipe": {"epochs": 4, "lr": 0.05, "schedule": "cosine"},
            "seed": values.seed,
        },
        "study",
    )
    data = load_scenario_data(scenario, values.data_root, None)
    cache = Cache(values.out / ".cache")
    settings = GeneratorSettings(
        width=values.width, discriminator_width=values.width, batch_size=values.batch
    )
    trainer = _trainer(scenario, compute, data, cache, settings)
    judge = GenerationMeter(data, compute, cache, Events(), extractors=("classifier",))
    rows = []
    noise = torch.Generator().manual_seed(values.seed)
    for step in range(0, values.steps + 1, values.every):
        if step:
            trainer.run(values.every)
        images = quantise(sample_unit(trainer.generator, values.images, noise)).cpu()
        rows.append(_row(step, images, judge))
        (values.out / f"grid-{step:05d}.png").write_bytes(picture("client 0", images[:64], data))
        _write(values.out, rows)
        said = "  ".join(f"{name} {rows[-1][name]:.4g}" for name in COLUMNS)
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
    return 0


def _trainer(
    scenario: ScenarioSpec,
    compute: ComputeSpec,
    data: ScenarioData,
    cache: Cache,
    settings: GeneratorSettings,
) -> GanTrainer:
    client = Federation(scenario, compute, data, cache, Events()).client(0)
    return GanTrainer(
        client.images,
        client.local_model().to(memory_format=torch.channels_last),
        num_classes=data.task.num_classes,
        settings=settings,
        normalization=data.task.normalization,
        random=client.generator("gan"),
        autocast=client.autocast,
        channels_last=True,
    )


def _row(step: int, images: Tensor, judge: GenerationMeter) -> dict[str, float]:
    (entry,), _ = judge(Generated(images))
    pooled = entry["pooled"]
    measured = {name: float(pooled[name]) for name in COLUMNS[1:-1]}
    return {"step": step, **measured, "usefulness": entry["usefulness"]["accuracy"]}


def _write(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    from matplotlib.figure import Figure

    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    figure = Figure(figsize=(4.2, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["step"] for row in rows], [row["fid_over_real"] for row in rows], marker="o")
    axes.axhline(1, linestyle="--", color="0.5", label="as many real test images")
    axes.set(xlabel="generator steps", ylabel="Fréchet distance, ratio to real", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(folder / "curve.png", dpi=150)


def _positive(text: str) -> int:
    """Return a whole number above 0; argparse says what is wrong with another text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmark.studies.generator_curve")
    parser.description = (__doc__ or "").partition("\n")[0]
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--steps", type=_positive, default=2000, help="generator steps in all")
    parser.add_argument("--every", type=_positive, default=250, help="steps between two looks")
    parser.add_argument("--images", type=_positive, default=5000, help="images of a look")
    parser.add_argument("--width", type=_positive, default=24, help="ngf = ndf")
    parser.add_argument("--batch", type=_positive, default=64, help="images of each kind a step")
    parser.add_argument("--samples", type=_positive, help="training images (default: all)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results/studies/generator_curve"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
