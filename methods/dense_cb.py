"""DENSE as the repository of Co-Boosting has it (Dai et al., ICLR 2024, baseline ``dense.sh``).

It differs from DENSE's own repository in the temperature and factor of the disagreement (3
and 9), in clipping, in having no augmentation inside the generator's loop, and in the
student's temperature, schedule, weight decay and batch size.
"""

from __future__ import annotations

from benchmark.contract import Source
from methods.blocks.adversarial_method import SHARED_DEVIATIONS, AdversarialMethod
from methods.blocks.co_boosting_defaults import CoBoostingDefaults


class DenseCbConfig(CoBoostingDefaults):
    """Hyper-parameters of the baseline; the defaults are those of ``dense.sh``."""


class DenseCb(AdversarialMethod[DenseCbConfig]):
    """The DENSE that Co-Boosting is compared with in its own repository."""

    name = "dense_cb"
    summary = "DENSE as a baseline in Co-Boosting's code: other temperatures, schedule, clipping"
    source = Source(
        "Enhancing One-Shot Federated Learning Through Data and Ensemble Co-Boosting",
        2024,
        "https://arxiv.org/abs/2402.15070",
    )
    implemented = (
        "The published script's settings on the loop of DENSE; uniform ensemble weights, no "
        "perturbation. Clients of unequal widths take part, which the published code can't do."
    )
    deviations = (
        "Only logits of clients are used; the published code also averages their unused "
        "features, which fails for unequal clients.",
        *SHARED_DEVIATIONS,
    )
    Config = DenseCbConfig
