"""What the contract suite finds in plugins that break it, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

import plugin_lab
import pytest
import torch

from benchmark.testing import Bench
from benchmark.testing import bench as bench_module
from benchmark.testing.checks import (
    Check,
    declares_what_it_uploads,
    describes_what_it_caches,
    draws_each_stream_once,
    finds_what_it_kept,
    leaves_global_chance_alone,
    leaves_its_inputs_alone,
    repeats_bit_for_bit,
    runs_and_classifies,
    sees_only_what_it_may,
    starts_students_as_the_scenario_says,
    trains_in_one_piece,
)

HOARDER = plugin_lab.SOURCE.replace(
    '        if mode == "raise"',
    '        type(self).hoard = [client.images]\n        if mode == "raise"',
)
GLOBAL_HOARDER = "HOARD = []\n" + plugin_lab.SOURCE.replace(
    '        if mode == "raise"', '        HOARD.append(client.images)\n        if mode == "raise"'
)
STUTTERER = plugin_lab.SOURCE.replace(
    '        if mode == "raise"',
    "        for _ in range(2):\n"
    '            torch.randn(1, generator=client.generator("noise"))\n'
    '        if mode == "raise"',
)
LOOPING = plugin_lab.SOURCE.replace(
    "        return GlobalModel(model)",
    '        [server.generator("noise") for _ in range(3)]\n        return GlobalModel(model)',
)
TWO_ROUNDS = "    @property\n    def rounds(self):\n        return 2\n\n    def client_update"
OWN_STUDENT = plugin_lab.SOURCE.replace("server.initial_model()", "server.new_model()")
SENT_STUDENT = plugin_lab.SOURCE.replace(
    "    def client_update",
    "    def broadcast(self, client, server):\n"
    "        return Broadcast({'student': server.new_model().state_dict()})\n\n"
    "    def client_update",
).replace("import GlobalModel", "import Broadcast, GlobalModel")
ASKS_FIRST = OWN_STUDENT.replace("    def client_update", TWO_ROUNDS).replace(
    "        model = server.new_model()\n",
    "        if server.round == 0:\n"
    "            server.state['start'] = server.student.init\n"
    "        model = server.initial_model()\n"
    "        if server.round == 1 and server.state['start'] == 'random':\n"
    "            model = server.new_model()\n",
)
HOMEBODY = plugin_lab.SOURCE.replace(
    '        if mode == "raise"',
    "        if client.round == 0:\n"
    "            self.mine = (client.info.index, client.images)\n"
    "        assert self.mine[0] == client.info.index\n"
    "        assert torch.equal(self.mine[1], client.images)\n"
    '        if mode == "raise"',
).replace(
    "    def client_update",
    "    @property\n    def rounds(self):\n        return 2\n\n    def client_update",
)
FORMS = (
    "client.images.float() / 255",
    "client.images.float()",
    "(client.images / 255).half()",
    "torch.cat([client.images / 255, torch.full_like(client.images[:1] / 255, torch.nan)])",
    "client.images.long()",
    "client.images / 127.5 - 1",
    "client.task.normalization.from_uint8(client.images)",
    "client.images.flatten(1)",
    "client.images[3]",
)
"""What a model may be fed, and what a plugin may make of an image by a slip."""
HIDING = (
    "[{}]",
    "__import__('functools').partial(print, {})",
    "__import__('collections').deque([{}])",
)
GAMBLER = plugin_lab.SOURCE.replace(
    "        return GlobalModel(model)",
    "        model.head.bias.data += torch.rand(10) * 1e-3\n        return GlobalModel(model)",
)
LOADED_DIE = GAMBLER.replace("torch.rand(10)", "__import__('random').random()")
MEDDLER = plugin_lab.SOURCE.replace(
    '        if mode == "raise"', '        client.images.clamp_(max=9)\n        if mode == "raise"'
)
SMUGGLER = plugin_lab.SOURCE.replace(
    '        return Upload({"model": client.local_model().state_dict()})\n',
    "        model = client.local_model().state_dict()\n"
    '        return Upload({"model": model, "photos": {"all": client.images}})\n',
)
COUNTS = "client.label_counts"
TOLD = {
    COUNTS: "label counts",
    f"{COUNTS} / {COUNTS}.sum()": "label counts",
    f"({COUNTS} > 0).to(torch.uint8)": "label sets",
    f"{COUNTS}.nonzero().flatten()": "label sets",
}


def teller(what: str) -> str:
    return SMUGGLER.replace('{"all": client.images}', f'{{"all": {what}}}')


def sayer(what: str) -> str:
    """Return a plugin that tells it among the values, which are JSON."""
    return plugin_lab.SOURCE.replace(
        '        return Upload({"model": client.local_model().state_dict()})\n',
        "        model = client.local_model().state_dict()\n"
        f'        return Upload({{"model": model}}, {{"who": {{"is": ({what}).tolist()}}}})\n',
    )


KEEPER = plugin_lab.SOURCE.replace(
    '        return Upload({"model": client.local_model().state_dict()})\n',
    """        def make():
            state = client.local_model().state_dict()
            return {name: value * self.config.scale for name, value in state.items()}, {}

        state, _ = client.cached("scaled", {"version": 3}, make)
        return Upload({"model": state})
""",
)
"""Keeps models scaled by a parameter that it doesn't describe, and gives it a version."""

FORGETFUL = (
    KEEPER.replace('{"version": 3}', '{"version": 3, "scale": self.config.scale}')
    .replace(
        "            state = client.local_model().state_dict()\n",
        "            state = client.local_model().state_dict()\n            self.shift = 0.25\n",
    )
    .replace(
        '        return Upload({"model": state})\n',
        '        shift = getattr(self, "shift", 0.0)\n'
        '        state["head.bias"] = state["head.bias"] + shift\n'
        '        return Upload({"model": state})\n',
    )
)
"""Needs what it did while it made something, where that is found."""
LOST = FORGETFUL.replace('getattr(self, "shift", 0.0)', "self.shift")


def pieces(how: str) -> str:
    """Return a plugin that trains in a loop of four."""
    return "import copy\n\n" + plugin_lab.SOURCE.replace(
        '        if mode == "raise"',
        "        model = client.initial_model()\n"
        "        start = copy.deepcopy(model.state_dict())\n"
        "        for at in range(4):\n"
        f"            {how}\n"
        '        if mode == "raise"',
    )


PEEKERS = (
    "datasets.load('digits', image_size=32).test",
    "importlib.import_module('sklearn.datasets').load_digits()",
)


def peeker(how: str) -> str:
    return "import importlib\n\nimport datasets\n" + plugin_lab.SOURCE.replace(
        "        return GlobalModel(model)", f"        {how}\n        return GlobalModel(model)"
    )


@pytest.mark.parametrize(
    ("source", "check", "says"),
    [
        *((peeker(how), sees_only_what_it_may, "the server opens .*digits") for how in PEEKERS),
        (HOARDER, sees_only_what_it_may, "client 0 reaches others' data"),
        (GLOBAL_HOARDER, sees_only_what_it_may, "client 0 reaches others' data"),
        (SMUGGLER, sees_only_what_it_may, "the server reaches client data"),
        *(
            (teller(what), declares_what_it_uploads, f"client 0 uploads its {told}")
            for what, told in TOLD.items()
        ),
        *(
            (sayer(what), declares_what_it_uploads, f"client 0 uploads its {told}")
            for what, told in TOLD.items()
        ),
        (GAMBLER, repeats_bit_for_bit, "differs between two runs"),
        (FORGETFUL, finds_what_it_kept, r"'head\.bias' differs between a run that makes"),
        *(
            (pieces(how), trains_in_one_piece, "client 0 trains a model in pieces in round 0")
            for how in (
                "client.train(model, steps=1)",
                "client.train(model, steps=1, loss=lambda m, x, out, y: out.square().mean())",
                "model = copy.deepcopy(model); client.train(model, steps=1)",
            )
        ),
        (
            STUTTERER,
            draws_each_stream_once,
            "client 0 asks 2 times for the stream 'noise' in round 0",
        ),
        (LOOPING, draws_each_stream_once, "the server asks 3 times for the stream 'noise'"),
        *(
            (
                source,
                starts_students_as_the_scenario_says,
                r"makes a student by new_model\(\) and never reads server\.student",
            )
            for source in (OWN_STUDENT, SENT_STUDENT)
        ),
        (GAMBLER, leaves_global_chance_alone, "uses the global RNG of torch"),
        (LOADED_DIE, leaves_global_chance_alone, "uses the global RNG of Python"),
        (KEEPER, describes_what_it_caches, "'scaled' is made by parameter 'scale', which"),
        (MEDDLER, leaves_its_inputs_alone, "images or labels were changed"),
    ],
)
def test_the_contract_suite_finds_what_it_breaks(
    source: str, check: Check, says: str, site: Path, tmp_path: Path
) -> None:
    assert source != plugin_lab.SOURCE
    plugin_lab.install(site, source)
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    runs_and_classifies(bench)  # as in the suite: no check is blinded by one before it
    with pytest.raises(AssertionError, match=says):
        check(bench)


def test_an_error_of_a_run_that_finds_what_it_kept_is_explained(site: Path, tmp_path: Path) -> None:
    plugin_lab.install(site, LOST)
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    with pytest.raises(AttributeError, match="shift") as caught:
        finds_what_it_kept(bench)
    assert "(scaled) is found, not made" in caught.value.__notes__[0]


@pytest.mark.parametrize("told", ['"scale": self.config.scale', '"factors": [self.config.scale]'])
def test_what_is_described_by_name_or_value_may_be_kept(
    told: str, site: Path, tmp_path: Path
) -> None:
    plugin_lab.install(site, KEEPER.replace('{"version": 3}', f'{{"version": 3, {told}}}'))
    overrides = {"train_samples": 120, "epochs": 1, "set": {"probe": {"scale": 2.5}}}
    bench = Bench("probe", overrides, folder=tmp_path / "cache")
    describes_what_it_caches(bench)
    assert bench.second.watch.shared == []
    assert all(bench.second.result.cache_ids.values()), "each client has kept something"


def test_the_streams_of_gpus_are_chance_too(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda,
        "get_rng_state_all",
        lambda: [torch.tensor([len(drawn), index], dtype=torch.uint8) for index in range(2)],
    )
    monkeypatch.setattr(torch, "rand", lambda _, device="cpu": drawn.append(str(device)))
    before = bench_module._global_chance()
    bench_module._move_global_chance()
    assert drawn == ["cpu", "cuda:0", "cuda:1"]
    after = bench_module._global_chance()
    assert {name for name in before if before[name] != after[name]} == {"NumPy", "Python", "CUDA"}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_found_in_every_form(form: str, site: Path, tmp_path: Path) -> None:
    plugin_lab.install(site, SMUGGLER.replace('{"all": client.images}', f'{{"all": {form}}}'))
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    with pytest.raises(AssertionError, match="the server reaches client data"):
        sees_only_what_it_may(bench)


@pytest.mark.parametrize("place", HIDING)
def test_an_image_is_found_wherever_it_hides(place: str, site: Path, tmp_path: Path) -> None:
    hidden = place.format("client.images")
    plugin_lab.install(site, HOARDER.replace("[client.images]", hidden))
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    with pytest.raises(AssertionError, match="client 1 reaches others' data"):
        sees_only_what_it_may(bench)


def test_what_hides_its_class_is_said(site: Path, tmp_path: Path) -> None:
    plugin_lab.install(
        site,
        plugin_lab.SOURCE.replace(
            "    def unsupported",
            "    def __init__(self, config):\n"
            "        super().__init__(config)\n"
            "        self.client_update = self.client_update\n\n"
            "    def unsupported",
        ),
    )
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    with pytest.raises(AssertionError, match=r"the method sets self\.client_update, which"):
        sees_only_what_it_may(bench)


def test_a_static_update_and_several_trainings_are_fine(site: Path, tmp_path: Path) -> None:
    plugin_lab.install(
        site,
        plugin_lab.SOURCE.replace(
            "    def client_update(self, client", "    @staticmethod\n    def client_update(client"
        ).replace(
            '        if mode == "raise"',
            "        for _ in range(2):\n"
            "            client.train(client.initial_model(), steps=1)\n"
            '        if mode == "raise"',
        ),
    )
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    for check in (runs_and_classifies, draws_each_stream_once, sees_only_what_it_may):
        check(bench)


@pytest.mark.parametrize(
    "how",
    [
        "client.train(model, steps=1, lr=0.1 / (1 + at))",
        "model.load_state_dict(start); client.train(model, steps=1)",
        "model.head.requires_grad_(at % 2 == 0); client.train(model, steps=1)",
    ],
)
def test_trainings_that_differ_are_no_pieces_of_one(how: str, site: Path, tmp_path: Path) -> None:
    plugin_lab.install(site, pieces(how))
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    trains_in_one_piece(bench)
    assert bench.second.watch.restarted == []


@pytest.mark.parametrize(
    "how",
    [
        'server.new_model() if server.student.init == "random" else server.initial_model()',
        'server.new_model("critic")',
    ],
)
def test_a_student_of_the_scenario_and_other_models_are_fine(
    how: str, site: Path, tmp_path: Path
) -> None:
    plugin_lab.install(site, plugin_lab.SOURCE.replace("server.initial_model()", how))
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    starts_students_as_the_scenario_says(bench)
    assert bench.second.watch.unruled == []


def test_a_student_may_be_made_in_a_later_round_than_the_scenario_is_asked_in(
    site: Path, tmp_path: Path
) -> None:
    assert ASKS_FIRST.count("server.student") == 1
    plugin_lab.install(site, ASKS_FIRST)
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    starts_students_as_the_scenario_says(bench)
    watch = bench.second.watch
    assert (watch.fresh_students, watch.starts_asked) == (1, 1)


def test_what_a_client_keeps_in_self_stays_there(site: Path, tmp_path: Path) -> None:
    """In the suite's checks as in a run: each client has a method of its own."""
    plugin_lab.install(site, HOMEBODY)
    bench = Bench("probe", {"train_samples": 120, "epochs": 1}, folder=tmp_path / "cache")
    for check in (runs_and_classifies, sees_only_what_it_may, repeats_bit_for_bit):
        check(bench)
