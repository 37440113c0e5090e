from __future__ import annotations

import logging
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_golden import TinyBN, close, load, part, random_tiny
from torch import Tensor

from methods.mosaic.experts import Experts, LogitExperts, MosaicTeacher, ParameterExperts
from methods.mosaic.mixing import ExpertMixer, expert_weights, masked_average

State = dict[str, Tensor]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=stream(9))


COUNTS = torch.tensor([[5, 0, 0, 1], [0, 7, 0, 1], [0, 2, 0, 4]])


def clients() -> list[TinyBN]:
    return [random_tiny(seed) for seed in range(3)]


def parameter_experts(models: list[TinyBN], resident: int | None = None) -> ParameterExperts:
    mixer = ExpertMixer([m.state_dict() for m in models], expert_weights(COUNTS))
    return ParameterExperts(models[0], mixer, resident)


def test_golden_aggregation() -> None:
    golden = load("aggregation.npz")
    states = [part(golden, f"client{i}.") for i in range(3)]
    weights = expert_weights(golden["label_counts"], golden["dataset_sizes"])
    mixer = ExpertMixer(states, weights)
    wanted = {"global.": mixer.global_state()}
    wanted |= {f"expert{c}.": mixer.state(c) for c in range(3)}
    for prefix, state in wanted.items():
        for name, value in part(golden, prefix).items():
            assert state[name].dtype == value.dtype
            assert close(state[name], value, 1e-6), (prefix, name)
    assert weights.unheld == tuple(golden["expert_is_none"].nonzero().flatten().tolist()) == (3,)
    # Names with "bn" in them are averaged like all others.
    assert not close(wanted["global."]["bn.weight"], golden["unused_bn_class.bn.weight"])


def test_class_nobody_holds_is_the_global_average_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The published code crashes there."""
    with caplog.at_level(logging.WARNING):
        weights = expert_weights(COUNTS)
    assert "(2,)" in caplog.text
    mixer = ExpertMixer([m.state_dict() for m in clients()], weights)
    fallback, whole = mixer.state(2), mixer.global_state()
    assert all(torch.equal(fallback[k], whole[k]) for k in whole)
    assert torch.allclose(weights.shares.sum(1), torch.ones(4, dtype=torch.float64))


def test_held_classes_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert expert_weights(torch.ones(2, 3)).unheld == ()
    assert not caplog.records


@pytest.mark.parametrize("counts", [[[1, -1]], [[0, 0]], [1, 2]])
def test_impossible_counts_are_refused(counts: list[object]) -> None:
    with pytest.raises(ValueError, match=r"counts|sizes"):
        expert_weights(torch.tensor(counts))


def test_every_client_needs_a_state() -> None:
    with pytest.raises(ValueError, match="3 clients"):
        ExpertMixer([random_tiny(0).state_dict()], expert_weights(COUNTS))
    with pytest.raises(ValueError, match="3 label counts"):
        LogitExperts([random_tiny(0)], expert_weights(COUNTS))


def test_a_spoilt_client_reaches_only_experts_that_weigh_it() -> None:
    """A weight of zero times NaN poisons every class in the published code."""
    models = clients()
    models[0].conv1.weight.data.fill_(math.nan)
    mixer = ExpertMixer([m.state_dict() for m in models], expert_weights(COUNTS))
    assert all(v.isfinite().all() for v in mixer.state(1).values())
    assert mixer.state(0)["conv1.weight"].isnan().all()


@pytest.mark.parametrize("resident", [0, 1, None])
def test_experts_held_or_built_on_demand_answer_alike(resident: int | None) -> None:
    models = clients()
    experts = parameter_experts(models, resident)
    logits = experts.logits(images())
    assert logits.shape == (5, 4, 4)
    assert torch.equal(logits, parameter_experts(models).logits(images()))
    # Class 0 has one holder: its expert is that client's model.
    assert torch.allclose(logits[:, 0], models[0](images()), atol=1e-6)
    features = models[1].features(images())
    heads = experts.head_logits(features)
    for index in range(4):
        assert torch.allclose(heads[:, index], experts.expert(index).head(features), atol=1e-6)


def test_number_of_models_in_memory_does_not_grow_with_classes() -> None:
    counts = torch.ones(3, 50, dtype=torch.int64)
    mixer = ExpertMixer([m.state_dict() for m in clients()], expert_weights(counts))
    experts = ParameterExperts(clients()[0], mixer, resident=2)
    assert len({id(experts.expert(i)) for i in range(50)}) == 3


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_experts_answer_where_the_images_are_wherever_uploads_wait() -> None:
    """Uploads stay in the main memory; the device ``meta`` stands for a GPU here."""
    counts = torch.ones(3, 6, dtype=torch.int64)
    mixer = ExpertMixer([m.state_dict() for m in clients()], expert_weights(counts))
    experts = ParameterExperts(clients()[0].to("meta"), mixer, resident=2)
    wanted = images().to("meta").requires_grad_()
    assert experts.logits(wanted).device.type == "meta"
    assert experts.logits(images().to("meta")).device.type == "meta"


def test_experts_carry_no_gradient_and_leave_the_given_model_alone() -> None:
    model = random_tiny(7).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    mixer = ExpertMixer([m.state_dict() for m in clients()], expert_weights(COUNTS))
    experts = ParameterExperts(model, mixer)
    assert not experts.logits(images()).requires_grad
    # Only images that ask for a gradient get one; experts' weights never do.
    wanted = images().requires_grad_()
    experts.logits(wanted).sum().backward()
    assert wanted.grad is not None
    held = [experts.expert(index) for index in range(experts.num_experts)]
    assert not any(p.requires_grad for expert in held for p in expert.parameters())
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_logit_experts_mix_outputs_by_label_counts() -> None:
    models = clients()
    experts = LogitExperts(models, expert_weights(COUNTS))
    outputs = [m(images()).detach() for m in models]
    logits = experts.logits(images())
    assert torch.allclose(logits[:, 0], outputs[0], atol=1e-6)
    assert torch.allclose(logits[:, 1], (7 * outputs[1] + 2 * outputs[2]) / 9, atol=1e-6)
    features = models[0].features(images())
    same = parameter_experts(models).head_logits(features)
    assert torch.allclose(experts.head_logits(features), same, atol=1e-5)
    with pytest.raises(ValueError, match="synthetic"):
        experts.head_logits(torch.ones(2, 5))


@pytest.mark.parametrize("kind", ["parameter", "logit"])
def test_a_prediction_does_not_depend_on_its_batch_mates(kind: str) -> None:
    models = clients()
    experts: Experts = (
        parameter_experts(models)
        if kind == "parameter"
        else LogitExperts(models, expert_weights(COUNTS))
    )
    teacher = MosaicTeacher(experts)
    together = teacher(images(6))
    alone = torch.cat([teacher(image[None]) for image in images(6)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, experts.logits(images(6)).mean(1))
    assert not list(teacher.parameters())


# Unequal widths


class Net(TinyBN):
    """TinyBN with ``width`` of its 4 and 6 channels."""

    def __init__(self, width: Fraction) -> None:
        super().__init__(4)
        self.conv1 = torch.nn.Conv2d(3, int(4 * width), 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(int(4 * width))
        self.conv2 = torch.nn.Conv2d(int(4 * width), int(6 * width), 3, 2, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(int(6 * width))
        self.head = torch.nn.Linear(int(6 * width), 4)


def narrow(seed: int) -> Net:
    random = stream(seed)
    model = Net(Fraction(1, 2))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=random) * 0.5
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return model.eval()


def spread(model: Net, offset: int) -> tuple[State, State]:
    """Scatter a half-width net into full size, from channel ``offset`` on, cyclically."""
    first = torch.tensor([(offset + i) % 4 for i in range(2)])
    second = torch.tensor([(offset + i) % 6 for i in range(3)])
    rows = {"conv1": first, "bn1": first, "conv2": second, "bn2": second}
    columns = {"conv2": first, "head": second}
    state: State = {}
    masks: State = {}
    for name, like in random_tiny(0).state_dict().items():
        layer, value = name.split(".")[0], model.state_dict()[name]
        if like.ndim == 0:
            state[name], masks[name] = value.clone(), torch.ones(())
            continue
        row = rows.get(layer, torch.arange(len(like)))
        full, mask = torch.full_like(like, 777.0), torch.zeros_like(like)
        if like.ndim > 1:
            column = columns.get(layer, torch.arange(like.shape[1]))
            index: tuple[Tensor, ...] = (row[:, None], column[None, :])
        else:
            index = (row,)
        full[index], mask[index] = value, 1.0
        state[name], masks[name] = full, mask
    return state, masks


HELD = torch.tensor([[5, 0, 2, 0], [0, 3, 4, 0]])


def hetero(fill: str, **options: State) -> tuple[ExpertMixer, list[Net]]:
    nets = [narrow(1), narrow(2)]
    pairs = [spread(net, offset) for net, offset in zip(nets, (0, 3), strict=True)]
    mixer = ExpertMixer(
        [s for s, _ in pairs],
        expert_weights(HELD),
        masks=[m for _, m in pairs],
        fill="zero" if fill == "zero" else "global",
        previous=options.get("previous"),
    )
    return mixer, nets


def test_one_holder_means_the_expert_is_that_clients_model() -> None:
    mixer, nets = hetero("zero")
    logits = ParameterExperts(random_tiny(0), mixer).logits(images())
    assert torch.allclose(logits[:, 0], nets[0](images()), atol=1e-6)
    assert torch.allclose(logits[:, 1], nets[1](images()), atol=1e-6)
    mixed = LogitExperts(nets, expert_weights(HELD)).logits(images())
    assert torch.allclose(mixed[:, :2], logits[:, :2], atol=1e-6)


def test_filling_from_the_global_average_breaks_that_identity() -> None:
    mixer, nets = hetero("global")
    logits = ParameterExperts(random_tiny(0), mixer).logits(images())
    assert not torch.allclose(logits[:, 0], nets[0](images()), atol=1e-3)
    state, whole = mixer.state(0), mixer.global_state()
    alone = masked_average([spread(nets[0], 0)], [1.0])
    _, mask = spread(nets[0], 0)
    for name in ("conv2.weight", "bn1.running_var"):
        owned = mask[name].bool()
        assert torch.equal(state[name][owned], alone[name][owned])
        assert torch.equal(state[name][~owned], whole[name][~owned])


def test_coordinates_are_averaged_over_their_owners() -> None:
    pairs = [
        ({"w": torch.tensor([1.0, 2.0, math.nan, 9.0])}, {"w": torch.tensor([1, 1, 0, 0])}),
        ({"w": torch.tensor([5.0, math.inf, 3.0, 9.0])}, {"w": torch.tensor([1, 0, 1, 0])}),
        ({"w": torch.full((4,), math.nan)}, {"w": torch.ones(4)}),
    ]
    plain = masked_average(pairs, [3.0, 1.0, 0.0])
    assert plain["w"].tolist() == [2.0, 2.0, 3.0, 0.0]
    kept = masked_average(pairs, [3.0, 1.0, 0.0], {"w": torch.full((4,), 7.0)})
    assert kept["w"].tolist() == [2.0, 2.0, 3.0, 7.0]
    name = "bn.running_var"
    alone = ({name: torch.tensor([3.0, 3.0])}, {name: torch.tensor([0, 1])})
    assert masked_average([alone], [2.0])[name].tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match="positive weight"):
        masked_average(pairs, [0.0, 0.0, 0.0])


def test_coordinates_without_any_owner_keep_the_last_global_value() -> None:
    previous = random_tiny(4).state_dict()
    mixer, _ = hetero("zero", previous=previous)
    whole = mixer.global_state()
    # Channels {0, 1, 2} and {3, 4, 5} of the second layer: no weight joins channel 0 to input 3.
    assert torch.equal(whole["conv2.weight"][0, 3], previous["conv2.weight"][0, 3])
    assert not torch.equal(whole["conv2.weight"][0, 0], previous["conv2.weight"][0, 0])
    neutral = hetero("zero")[0].global_state()
    assert not neutral["conv2.weight"][0, 3].any()


@given(st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any))
@settings(max_examples=15, deadline=None)
def test_with_full_masks_it_is_the_plain_average(counts: list[int]) -> None:
    states = [m.state_dict() for m in clients()]
    masks = [{k: torch.ones_like(v) for k, v in state.items()} for state in states]
    weights = expert_weights(torch.tensor(counts)[:, None])
    plain = ExpertMixer(states, weights).state(0)
    masked = ExpertMixer(states, weights, masks=masks).state(0)
    assert list(plain) == list(masked)
    for name, value in plain.items():
        assert masked[name].dtype == value.dtype
        assert torch.allclose(masked[name], value, atol=1e-6)
