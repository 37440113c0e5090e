"""What Mosaic costs: server memory over the number of classes, and the generator's training.

``python -m benchmark.speed.mosaic_cost`` measures two things.

Memory: the teacher of K clients is made in a process of its own, with 10 and with 200 classes,
and asked for a batch. What its peak resident memory grows by is printed beside the size of the
meta model alone. All 200 experts as models would take 200 times a model.

Time: a training step of a client's generator beside the operations that it can't do without
(four forward passes, three backward passes, two updates, on batches made beforehand), in
turns of a few steps, as a ratio of medians.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.speed.peaks import in_child
from benchmark.speed.teacher_probe import BATCH, IN_MEMORY, TeacherMemory, measure
from benchmark.training.precision import configure_threads
from methods.mosaic.gan_trainer import GanTrainer
from methods.mosaic.networks import GanShape
from methods.mosaic.settings import GeneratorSettings

NORMALIZATION = Normalization((0.5,), (0.5,))
MEBI = 2**20


class Operations:
    """The operations of a generator's step, on batches that are there already.

    Parameters
    ----------
    shape : GanShape
        Sizes of both networks.
    classifier : Module
        Frozen guide.
    real, noise : Tensor
        The batches.
    """

    def __init__(self, shape: GanShape, classifier: nn.Module, real: Tensor, noise: Tensor) -> None:
        random = torch.Generator().manual_seed(1)
        layout = {"memory_format": torch.channels_last}
        self.generator = shape.build_generator(random).to(**layout).train()
        self.discriminator = shape.build_discriminator(random).to(**layout).train()
        self.classifier, self.real, self.noise = classifier, real, noise
        self._adams = [
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for net in (self.generator, self.discriminator)
        ]
        self._ones, self._zeros = torch.ones(len(real)), torch.zeros(len(real))

    def step(self) -> None:
        """Do them once."""
        of_generator, of_discriminator = self._adams
        of_discriminator.zero_grad(set_to_none=True)
        judge, verdict = self.discriminator.logits, F.binary_cross_entropy_with_logits
        torch.autograd.backward(verdict(judge(self.real), self._ones))
        fake = self.generator(self.noise)
        logits = self.classifier(NORMALIZATION.from_tanh(fake))
        torch.autograd.backward(verdict(judge(fake.detach()), self._zeros))
        of_discriminator.step()
        of_generator.zero_grad(set_to_none=True)
        loss = verdict(judge(fake), self._ones) + logits.logsumexp(1).mean()
        torch.autograd.backward(loss, inputs=list(self.generator.parameters()))
        of_generator.step()


def measure_step(width: int, turns: int, steps: int) -> tuple[float, float]:
    """Return median seconds of a training step, and of its operations alone.

    Parameters
    ----------
    width : int
        Channels of generator and discriminator (ngf, ndf).
    turns, steps : int
        Turns of each, and steps of a turn.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2000, 1, 32, 32), dtype=torch.uint8, generator=random)
    classifier = build(
        "cnn", num_classes=10, channels=1, width=Fraction(1, 2), generator=random
    ).to(memory_format=torch.channels_last)
    classifier.eval().requires_grad_(False)
    settings = GeneratorSettings(
        width=width, discriminator_width=width, batch_size=BATCH, inversion=0.0
    )
    trainer = GanTrainer(
        images,
        classifier,
        num_classes=10,
        settings=settings,
        normalization=NORMALIZATION,
        random=random,
        channels_last=True,
        interval=steps,
    )
    real = (images[:BATCH].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    noise = torch.randn(BATCH, settings.noise, 1, 1, generator=random)
    bare = Operations(trainer.shape, classifier, real, noise)

    def ours() -> None:
        trainer.run(steps)

    def plain() -> None:
        for _ in range(steps):
            bare.step()

    seconds: dict[Callable[[], None], list[float]] = {ours: [], plain: []}
    for turn in range(turns + 1):
        for run, taken in seconds.items():
            # Time of this process, so that others on the machine don't count.
            began = time.process_time()
            run()
            if turn:
                taken.append((time.process_time() - began) / steps)
    return median(seconds[ours]), median(seconds[plain])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64, help="channels of the generator (ngf)")
    parser.add_argument("--turns", type=int, default=9, help="turns of each")
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--bound", type=float, default=1.15, help="largest ratio of step times")
    options = parser.parse_args(arguments)
    configure_threads(1)
    write = sys.stdout.write
    try:
        found: dict[int, TeacherMemory] = {n: in_child(measure, n) for n in (10, 200)}
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for classes, memory in found.items():
        write(
            f"{classes:4d} classes: experts {memory.grown / MEBI:6.1f} MiB at the peak "
            f"({classes} models would be {classes * memory.model / MEBI:.0f} MiB), "
            f"meta model {memory.meta / MEBI:.1f} MiB\n"
        )
    ours, alone = measure_step(options.width, options.turns, options.steps)
    write(
        f"generator step, width {options.width}: {ours * 1000:.1f} ms, its operations alone "
        f"{alone * 1000:.1f} ms, ratio {ours / alone:.3f}\n"
    )
    # The answer itself, [B, 200, 200], grows with the classes; some models are the allowance.
    answer = 4 * BATCH * 200 * 200
    few, many = found.values()
    steady = many.grown - few.grown < answer + IN_MEMORY * many.model
    return 0 if steady and ours / alone <= options.bound else 1


if __name__ == "__main__":
    raise SystemExit(main())
