"""The hyper-parameters that DENSE and Co-Boosting share, and what they are made into."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from benchmark.contract import MethodConfig, parameter
from benchmark.specs import BudgetSpec, ScenarioSpec
from methods.blocks import standard_parts  # noqa: F401 - registers the parts
from methods.blocks.composition import IMAGES, PRESETS, STUDENTS, TEACHERS, Composition
from methods.blocks.schedule import Budget, published_budget

_FORWARD = 1 / 3
"""Cost of a forward pass in units of a training step: forward, input and weight gradient."""


class AdversarialConfig(MethodConfig):
    """Hyper-parameters of a method that distils an ensemble on adversarially made images.

    The defaults are those of DENSE's README command; other methods override them.
    """

    schedule: Literal["budget", "published"] = parameter(
        "budget",
        "'budget' spends what the profile grants every method alike; 'published' spends "
        "`epochs` times `steps_per_epoch` steps and passes over the whole pool in every epoch",
    )
    epochs: int = parameter(
        200, "server epochs of the published schedule", unit="epochs", source="code", ge=1
    )
    steps_per_epoch: int = parameter(
        30, "generator steps an epoch of the published schedule", unit="steps", source="code", ge=1
    )
    synthesis_batch: int = parameter(
        256, "images made together in an epoch, the most", unit="images", source="code", ge=1
    )
    noise_size: int = parameter(256, "length of the generator's noise", source="code", ge=1)
    generator_width: int = parameter(
        64, "channels of the generator's last hidden layer", source="code", ge=1
    )
    generator_lr: float = parameter(
        1e-3, "learning rate of Adam (0.5, 0.999) for generator and noise", source="code", gt=0
    )
    onehot: float = parameter(
        1.0, "weight of the cross-entropy with the drawn classes", source="code", ge=0
    )
    adversarial: float = parameter(
        1.0, "weight of the disagreement of ensemble and student", source="code", ge=0
    )
    adversarial_temperature: float = parameter(
        1.0, "temperature T of the disagreement, whose factor is T²", source="code", gt=0
    )
    batch_norm: float = parameter(
        0.0,
        "weight of the batch-norm statistics term: 1 in the paper and the README command, "
        "without any effect in the published code, hence 0",
        source="code",
        ge=0,
    )
    generator_clip: float | None = parameter(
        None, "largest gradient norm of the generator, none if not given", source="code", gt=0
    )
    view: Literal["fixed", "clients", "none"] = parameter(
        "fixed",
        "augmentation between generator and classifiers: 'fixed' is a crop after padding by "
        "4 of 32 pixels, and a flip; 'clients' what the clients train with",
        source="code",
    )
    reading: Literal["dense", "clients", "none"] = parameter(
        "dense",
        "augmentation of the stored images: 'dense' flips, and crops where there is colour "
        "(published: CIFAR alone); 'clients' is what the clients train with",
        source="code",
    )
    temperature: float = parameter(20.0, "temperature T of T² · KL", source="code", gt=0)
    lr: float = parameter(0.005, "learning rate of the student's SGD", source="code", gt=0)
    momentum: float = parameter(0.9, "momentum of the student's SGD", source="code", ge=0, lt=1)
    weight_decay: float = parameter(0.0, "weight decay of the student's SGD", source="code", ge=0)
    cosine: bool = parameter(
        False, "whether the student's learning rate is annealed to 0 over the epochs", source="code"
    )
    clip: float | None = parameter(
        None, "largest gradient norm of the student, none if not given", source="code", gt=0
    )
    batch_size: int = parameter(
        256, "images of a distillation step", unit="images", source="code", ge=1
    )
    student_setting: Literal["scenario", "native"] = parameter(
        "scenario",
        "start and batch norm of the student: the scenario's, one for all methods, or the "
        "published ones (random weights, statistics updated)",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.onehot == self.adversarial == self.batch_norm == 0:
            raise ValueError("onehot, adversarial and batch_norm are all 0: nothing is trained")
        return self

    def own_budget(self) -> Budget | None:
        """Return the published schedule's budget if that is asked for."""
        if self.schedule == "budget":
            return None
        return published_budget(self.epochs, self.steps_per_epoch, self.synthesis_batch)

    def composition(self, preset: str) -> Composition:
        """Return the parts of a named method with these hyper-parameters."""
        images, teacher, student = PRESETS[preset]
        augmentation = {"crop_padding": 4, "flip": True} if self.view == "fixed" else {}
        if self.view == "none":
            augmentation = {"crop_padding": 0, "flip": False}
        return Composition(
            images,
            teacher,
            student,
            IMAGES[images].settings.model_copy(
                update={
                    "synthesis_batch": self.synthesis_batch,
                    "noise_size": self.noise_size,
                    "generator_width": self.generator_width,
                    "learning_rate": self.generator_lr,
                    "onehot": self.onehot,
                    "adversarial": self.adversarial,
                    "temperature": self.adversarial_temperature,
                    "batch_norm": self.batch_norm,
                    "clip_norm": self.generator_clip,
                    "view": "clients" if self.view == "clients" else "fixed",
                    "reading": self.reading,
                    **augmentation,
                }
            ),
            TEACHERS[teacher].settings,
            STUDENTS[student].settings.model_copy(
                update={
                    "temperature": self.temperature,
                    "learning_rate": self.lr,
                    "momentum": self.momentum,
                    "weight_decay": self.weight_decay,
                    "cosine": self.cosine,
                    "clip_norm": self.clip,
                    "batch_size": self.batch_size,
                }
            ),
            self.student_setting,
            self.own_budget(),
        )

    def workload(self, scenario: ScenarioSpec, granted: BudgetSpec) -> int:
        """Return about how many training images' worth of work the server has.

        Client passes cost a forward pass, and an input gradient where the generator learns;
        the generator counts as one more client.
        """
        spent = self.own_budget() or granted
        clients = scenario.partition.clients
        images = round(spent.generator_steps * self.synthesis_batch)
        return round(
            images * 2 * _FORWARD * (clients + 2)
            + spent.distilled_images * (1 + _FORWARD * clients * self.teacher_passes())
        )

    def teacher_passes(self) -> int:
        """Return the forward passes of all clients for an image that is distilled."""
        return 1
