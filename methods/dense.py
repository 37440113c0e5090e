"""DENSE (Zhang et al., NeurIPS 2022): distil the ensemble on images made against it.

What the published code does by accident, and what became of it here:

====================================================== =====================================
published code                                         here
====================================================== =====================================
batch-norm hooks never attach, the term is always 0    ``batch_norm`` (0 as it ran); attaches
client networks stay in eval mode after epoch 1        the trainer sets the mode each epoch
student in train mode during the first synthesis       always in eval mode
best epoch chosen on the test set                      the last epoch, always
folder of images never cleared between runs            a pool private to the run
weight files named without seed, model or split        content-addressed cache
logging asks for five clients, fails for fewer         any number of clients
learning rate overwritten for all clients (mixed ones) one recipe, immutable
class proportions 0/0 at a tiny alpha                  bounded partition schemes
flags without effect, preview images each epoch        refused; none written
weight gradients pile up in clients and student        never computed
====================================================== =====================================
"""

from __future__ import annotations

from benchmark.contract import Source
from methods.blocks.adversarial_config import AdversarialConfig
from methods.blocks.adversarial_method import SHARED_DEVIATIONS, AdversarialMethod


class DenseConfig(AdversarialConfig):
    """DENSE's hyper-parameters; the defaults are those of its README command."""


class Dense(AdversarialMethod[DenseConfig]):
    """Every epoch a fresh generator makes one batch; the student learns from all of them."""

    name = "dense"
    summary = "data-free distillation of the mean of logits on adversarially made images"
    source = Source(
        "DENSE: Data-Free One-Shot Federated Learning",
        2022,
        "https://arxiv.org/abs/2112.12371",
    )
    implemented = (
        "Generator, cross-entropy and masked disagreement, optional batch-norm statistics, "
        "growing pool, and distillation at T = 20, as its own repository has them. Clients of "
        "unequal widths take part; the student has the largest width."
    )
    deviations = (
        "The batch-norm statistics term is off by default: in the published code its hooks "
        "never attach, and all published numbers were made without it. batch_norm=1 is the "
        "paper's.",
        "The second, unused augmented view of the published loop is not made.",
        "The published inputs are not normalised; padding and flip happen in pixel space here too.",
        *SHARED_DEVIATIONS,
    )
    Config = DenseConfig
