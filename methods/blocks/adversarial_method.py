"""What DENSE, its variant and Co-Boosting share as plugins: upload the model, run the parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from benchmark.contract import Broadcast, Client, GlobalModel, Method, Server, Upload
from benchmark.specs import BudgetSpec, ScenarioSpec
from methods.blocks.adversarial_config import AdversarialConfig
from methods.blocks.composition import Composition, compose, composition_upload

ConfigT = TypeVar("ConfigT", bound=AdversarialConfig)

UPLOADS = (
    "the model's state dict; the sample count too, read only where the scenario starts "
    "students from the aggregate"
)

SHARED_DEVIATIONS = (
    "The client models are the scenario's, trained by its one recipe for all methods; the "
    "published code has a recipe of its own, and leaves clients in evaluation mode after "
    "their first epoch (DENSE).",
    "A profile fixes generator steps, generated and distilled images for all methods alike: "
    "an epoch makes one batch, epochs share the steps evenly, and distil in proportion to the "
    "pool. Steps a batch (30 published) and passes over the pool an epoch (one published) follow "
    "from the profile; in profile `paper` DENSE has both as published, `dense_cb` and "
    "Co-Boosting, whose batches are half as large, half of both. `schedule=published` restores "
    "the published schedule.",
    "The student's start and its batch-norm rule are the scenario's; "
    "`student_setting=native` restores the published ones.",
    "Accuracy is that of the last epoch; the published codes report the best epoch on the "
    "test set, which no option brings back.",
    "Images stay in memory as one tensor of the same 8-bit values (truncated, as published); "
    "they are private to a run, whereas the published folder of images is never cleared.",
    "The student is in evaluation mode whenever a generator learns from it, and no weight "
    "gradient is computed in client models, which are frozen.",
    "Inputs have the dataset's normalisation, the same for all methods.",
    "Stored images are cropped where they have colour; DENSE's published code crops CIFAR alone.",
    "A last batch of one image joins the batch before it.",
    "With bfloat16 the forward passes run in it; losses are formed in float32.",
    "Paddings are published for 32×32 images and scaled with the image size.",
)


class AdversarialMethod(Method[ConfigT]):
    """A method whose parts are those of :data:`~methods.blocks.composition.PRESETS`."""

    uploads = UPLOADS
    Config = AdversarialConfig

    @property
    def composition(self) -> Composition:
        """The method's parts with its hyper-parameters."""
        return self.config.composition(self.name)

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return the server's work in training images, see the configuration."""
        return self.config.workload(scenario, budget)

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload the local model, and the sample count."""
        return composition_upload(self.composition, client)

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Distil the clients' ensemble into the student."""
        return compose(self.composition, uploads, server)
