"""Co-Boosting (Dai et al., ICLR 2024): better images and a better ensemble in turns.

What the published code does by accident, and what became of it here:

====================================================== =====================================
published code                                         here
====================================================== =====================================
best epoch chosen on the test set                      the last epoch, always
folder named after the run, never cleared              a pool private to the run
bare ``except`` as control flow hides real errors      none
teacher run twice only to learn the output's shape     once
all clients differentiated to update the weights       closed form, no client backward pass
batch-norm hooks stay attached with weight 0           attached only while the term counts
size of the perturbation in normalised units           ``perturbation``, in unit pixels (4/255)
temperatures hard-coded (3 and 4)                      parameters
64-pixel clients, 32-pixel generator                   the generator makes the task's size
partition loops that may not end                       bounded partition schemes
``eval()`` does not reach clients in a plain list      clients are frozen when they come in
folders of the author, softmax without an axis         none
``wa_steps=0`` and fewer than 5 classes crash          ``weight_passes=0`` keeps the weights
====================================================== =====================================
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.contract import Source, parameter
from methods.blocks.adversarial_method import SHARED_DEVIATIONS, AdversarialMethod
from methods.blocks.co_boosting_defaults import CoBoostingDefaults
from methods.blocks.composition import Composition
from methods.blocks.perturbation import Perturbation


class CoBoostingConfig(CoBoostingDefaults):
    """Hyper-parameters of Co-Boosting; the defaults are those of ``co_boosting.sh``."""

    hardness: float = parameter(
        1.0, "exponent of the weights (1 - p) on the cross-entropy", source="code", ge=0
    )
    perturbation: float = parameter(
        4 / 255,
        "size of the step towards harder images; published as 8/255 where pixels span 2",
        unit="unit pixels",
        source="code",
        ge=0,
    )
    perturbation_temperature: float = parameter(
        4.0, "temperature of the probabilities that the step raises", source="code", gt=0
    )
    weight_step: float = parameter(
        0.01, "sign step of the ensemble weights in the first epoch (mu)", source="code", ge=0
    )
    weight_step_decay: float = parameter(
        0.99, "factor on that step for each epoch", source="code", gt=0, le=1
    )
    weight_passes: int = parameter(
        1, "passes over the older images an epoch to improve the weights", source="code", ge=0
    )

    def composition(self, preset: str) -> Composition:
        """Return the parts, with hardness, weight search and perturbation."""
        made = super().composition(preset)
        search = {
            "step": self.weight_step,
            "decay": self.weight_step_decay,
            "passes": self.weight_passes,
            "batch_size": self.batch_size,
        }
        shift = Perturbation(size=self.perturbation, temperature=self.perturbation_temperature)
        return replace(
            made,
            images_settings=made.images_settings.model_copy(update={"hardness": self.hardness}),
            teacher_settings=made.teacher_settings.model_copy(update=search),
            student_settings=made.student_settings.model_copy(
                update={"perturbation": shift if self.perturbation else None}
            ),
        )

    def teacher_passes(self) -> int:
        """Return the forward passes of all clients for an image that is distilled.

        Teacher, perturbation (forward and input gradient), and the search for weights.
        """
        return 3 + self.weight_passes


class CoBoosting(AdversarialMethod[CoBoostingConfig]):
    """Hard images, weights that suit them, and a student on images made harder still."""

    name = "co_boosting"
    summary = "distillation of a weighted ensemble, its weights and images boosting each other"
    source = Source(
        "Enhancing One-Shot Federated Learning Through Data and Ensemble Co-Boosting",
        2024,
        "https://arxiv.org/abs/2402.15070",
    )
    implemented = (
        "Hardness-weighted and unmasked synthesis, sign updates of the ensemble weights on the "
        "older images, perturbed distillation, as in the published code. Clients of unequal "
        "widths take part, which the published code can't do."
    )
    deviations = (
        "The images on which weights are improved keep their published ratio to the distilled "
        "ones, whatever the budget.",
        "The size of a step of the weights shrinks by its published factor an epoch, however many "
        "epochs a profile makes (published 200, which end at 0.13 of the first step).",
        "All-zero ensemble weights count as uniform ones; the published code would divide by 0.",
        "The perturbation is stated in unit pixels, so that its strength does not depend on the "
        "normalisation; as published it is not clamped to the valid range.",
        "Only logits of clients are used; the published code also averages their unused "
        "features, which fails for unequal clients.",
        *SHARED_DEVIATIONS,
    )
    Config = CoBoostingConfig
