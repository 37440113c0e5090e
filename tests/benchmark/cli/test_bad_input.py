"""Bad input: one line on stderr that names the thing, exit status 2, no traceback."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from cli_lab import check

from benchmark.cli.verb_run import parser

PLAN = ("--methods", "fedavg", "--dry-run")
"""Beside flags that are ignored where they are not refused: then nothing runs for long."""
CASES = {
    "unknown method": (["--methods", "fedavgg"], ["'fedavgg'", "did you mean 'fedavg'?"]),
    "all beside another": (["--methods", "all", "fedavg"], ["'all' stands alone"]),
    "method named twice": (["--methods", "fedavg", "fedavg"], ["methods", "named twice"]),
    "unknown dataset": (["--datasets", "fashion_minst"], ["fashion_minst", "'fashion_mnist'"]),
    "unknown profile": (["--profile", "quik"], ["quik", "'quick'"]),
    "unknown model": (["--model", "resnet81"], ["resnet81", "'resnet18'"]),
    "unknown timm model": (
        ["--model", "timm:resnt18", "--widths", "1", *PLAN],
        ["'resnt18'", "closest: resnet18"],
    ),
    "timm model unlike any": (["--model", "timm:nope", *PLAN], ["'nope'", "list_models"]),
    "unknown norm": (["--norm", "bacth"], ["bacth", "'batch'"]),
    "norm a model lacks": (["--model", "resnet18", "--norm", "none"], ["resnet18", "'none'"]),
    "unknown partition": (["--partition", "dirichlett"], ["dirichlett", "'dirichlet'"]),
    "unknown parameter": (["--set", "fedavg.round=2"], ["'round'", "'rounds'"]),
    "parameter of an unknown method": (["--set", "fedavq.rounds=2"], ["fedavq", "'fedavg'"]),
    "parameter without value": (["--set", "fedavg.rounds"], ["fedavg.rounds", "method.param"]),
    "parameter set twice": (["--set", "fedavg.rounds=1", "fedavg.rounds=2"], ["fedavg.rounds"]),
    "parameter of a wrong type": (["--set", "fedavg.rounds=many"], ["rounds", "many"]),
    "a date that there is not": (["--set", "fedavg.rounds=2026-02-30"], ["'2026-02-30'"]),
    "parameter out of range": (["--set", "fedavg.rounds=0"], ["rounds", "0"]),
    "alpha zero": (["--alpha", "0"], ["alpha", "greater than 0"]),
    "alpha negative": (["--alpha", "0.1", "-1"], ["alpha", "-1"]),
    "alpha NaN": (["--alpha", "nan"], ["alpha", "finite"]),
    "alpha infinite": (["--alpha", "inf"], ["alpha", "finite"]),
    "alpha no number": (["--alpha", "small"], ["alpha", "small"]),
    "alphas with a comma": (["--alpha", "0.1,0.5"], ["alpha", "spaces"]),
    "seeds as a range": (["--seeds", "0-2"], ["seeds", "'0-2'"]),
    "threads the machine lacks": (["--threads", "10000"], ["--threads 10000", "cores"]),
    "wrong value outside the grid": (
        ["--methods", "fedavg", "--set", "ensemble.average=probs"],
        ["average", "'probs'", "'probabilities'"],
    ),
    "committed results' name": (["--experiment", "reference"], ["experiment", "committed"]),
    "alpha named twice": (["--alpha", "0.1", "0.1"], ["alpha", "named twice"]),
    "alpha given twice": (["--alpha", "0.1", "--alpha", "0.1"], ["alpha", "named twice"]),
    "a budget beyond counting": (["--budget", "1000001"], ["budget", "less than or equal"]),
    "no clients": (["--clients", "0"], ["clients", "0"]),
    "half a client": (["--clients", "2.5"], ["clients", "2.5"]),
    "more clients than samples": (["--clients", "5000"], ["clients 5000", "samples"]),
    "width zero": (["--widths", "0"], ["widths", "0"]),
    "width above one": (["--widths", "1,2"], ["widths", "2"]),
    "width no number": (["--widths", "half"], ["widths", "half"]),
    "width divided by zero": (["--widths", "1/0"], ["widths", "1/0"]),
    "width a model lacks": (["--model", "timm:resnet18", "--widths", "1/2"], ["width", "1/2"]),
    "a plan longer than its clients": (
        ["--methods", "fedavg", "--clients", "5", "2", "--widths", "1", "1,1/2,1/4"],
        ["widths 1,1/2,1/4", "clients 2"],
    ),
    "duplicate seeds": (["--seeds", "1", "2", "1"], ["seeds", "1 is named twice"]),
    "negative seed": (["--seeds", "-3"], ["seeds", "-3"]),
    "fractional seed": (["--seeds", "1.5"], ["seeds", "1.5"]),
    "holdout above a half": (["--holdout", "0.9"], ["holdout", "0.9"]),
    "too many train samples": (["--train-samples", "9999"], ["train_samples 9999", "digits"]),
    "no epochs": (["--epochs", "0"], ["epochs", "0"]),
    "no threads": (["--threads", "0"], ["threads", "0"]),
    "image size": (["--image-size", "48"], ["image_size", "48"]),
    "classes per client missing": (["--partition", "classes_per_client"], ["classes_per_client"]),
    "classes per client too many": (
        ["--partition", "classes_per_client", "--classes-per-client", "11"],
        ["classes_per_client 11", "10 classes"],
    ),
    "classes per client without their partition": (
        ["--classes-per-client", "2", *PLAN],
        ["--classes-per-client has no effect", "--partition classes_per_client"],
    ),
    "alpha without Dirichlet": (
        ["--partition", "iid", "--alpha", "0.1", "0.5", *PLAN],
        ["--alpha has no effect", "--partition dirichlet"],
    ),
    "warm-up steps without warm-up": (
        ["--warmup-steps", "5", *PLAN],
        ["--warmup-steps has no effect", "--rounds-warmup above 0"],
    ),
    "warm-up rate without warm-up": (
        ["--rounds-warmup", "0", "--warmup-lr", "0.1", *PLAN],
        ["--warmup-lr has no effect", "--rounds-warmup above 0"],
    ),
    "local training after no warm-up": (
        ["--warmup-local", "steps", *PLAN],
        ["--warmup-local has no effect", "--rounds-warmup above 0"],
    ),
    "extractors where the holdout judges": (
        ["--judged-on", "holdout", "--extractors", "classifier", *PLAN],
        ["--extractors has no effect", "--judged-on test"],
    ),
    "parameter of a method that is not run": (
        ["--methods", "fedavg", "--set", "ensemble.average=probabilities"],
        ["--set ensemble.average has no effect", "--methods ensemble"],
    ),
    "weights of no extractor": (
        ["--inception-weights", __file__, *PLAN],
        ["--inception-weights has no effect", "--extractors inception"],
    ),
    "yes for a number": (["--set", "fedavg.rounds=true", *PLAN], ["'fedavg'", "rounds", "true"]),
    "yes for a part's number": (
        ["--set", "compose.images_settings.synthesis_batch=yes", *PLAN],
        ["'compose'", "images_settings.synthesis_batch", "true"],
    ),
    "experiment name": (["--experiment", "../main"], ["experiment", "../main"]),
    "unknown flag": (["--alhpa", "1"], ["--alhpa", "'--alpha'"]),
    "abbreviated flag": (["--dataset", "digits"], ["--dataset'", "'--datasets'"]),
    "flag without value": (["--alpha"], ["--alpha", "expected"]),
    "stray argument": (["run", "fedavg"], ["'fedavg'"]),
    "unknown precision": (["--precision", "fp16"], ["fp16", "bf16"]),
    "unknown device": (["--device", "gpu"], ["gpu", "'cpu'"]),
    "timeout no duration": (["--timeout", "soon"], ["--timeout", "'soon'"]),
    "timeout ambiguous": (["--timeout", "1h30"], ["--timeout", "'1h30'"]),
    "timeout zero": (["--timeout", "0s"], ["--timeout", "'0s'"]),
    "force of a stranger": (["--methods", "fedavg", "--force", "ensemble"], ["'ensemble'"]),
    "log level": (["--log-level", "chatty"], ["chatty"]),
    "missing config": (["--config", "none.yaml"], ["none.yaml", "No such file"]),
    "unknown bundled experiment": (["--config", "ablatoin"], ["ablatoin"]),
    "unknown verb": (["lsit"], ["'lsit'", "'list'"]),
    "unknown list": (["list", "method"], ["method", "'methods'"]),
    "describe a stranger": (["describe", "fedavk"], ["fedavk", "'fedavg'"]),
    "report of nothing": (["report"], ["no experiment in results"]),
    "report of a stranger": (["report", "mian"], ["mian"]),
    "report of a stranger's folder": (["report", "runs/mian"], ["results", "'runs/mian'"]),
    "clean a stranger": (["clean", "--experiment", "mian"], ["mian"]),
    "clean an unknown kind": (["clean", "--cache-kind", "modles"], ["modles"]),
    "split into no picture": (["split", "--output", "split.txt"], [".txt", ".png"]),
    "split too many": (["split", "--split-seeds", *map(str, range(30))], ["30 partitions"]),
    "plugin name no identifier": (["new-method", "my-method"], ["'my-method'", "my_method"]),
    "plugin name a keyword": (["new-method", "class"], ["'class'"]),
    "plugin name taken": (["new-method", "fedavg"], ["fedavg"]),
}

FILES = {
    "malformed YAML": ("methods: [fedavg", ["bad.yaml", "not valid YAML"]),
    "key written twice": ("alpha: 0.1\nalpha: 0.2\n", ["bad.yaml", "'alpha' is written twice"]),
    "a date that there is not": ("description: 2026-02-30\n", ["bad.yaml", "not valid YAML"]),
    "yes for a number": ("alpha: true\n", ["bad.yaml", "alpha", "true"]),
    "no mapping": ("- fedavg\n", ["bad.yaml", "mapping"]),
    "unknown key": ("alhpa: 0.1\n", ["bad.yaml", "'alhpa'", "'alpha'"]),
    "wrong type": ("epochs: many\n", ["bad.yaml", "epochs", "many"]),
    "set is no mapping": ("set: 3\n", ["bad.yaml", "set"]),
    "unknown profile": ("profile: quik\n", ["quik", "'quick'"]),
    "warm-up without rounds": (
        "warmup_lr: 0.1\n",
        ["bad.yaml: warmup_lr has no effect", "rounds_warmup above 0"],
    ),
    "alpha without Dirichlet": (
        "partition: iid\nalpha: 0.1\n",
        ["bad.yaml: alpha has no effect", "partition dirichlet"],
    ),
    "variant without method": ("variants: {a: {rounds: 2}}\n", ["'a'", "method"]),
}


def test_there_are_enough_cases() -> None:
    assert len(CASES) + len(FILES) >= 30


@pytest.mark.parametrize(("argv", "parts"), CASES.values(), ids=CASES.keys())
def test_flags(cli, argv: list[str], parts: list[str]) -> None:
    check(cli(*argv), parts)


@pytest.mark.parametrize(("text", "parts"), FILES.values(), ids=FILES.keys())
def test_experiment_files(cli, tmp_path: Path, text: str, parts: list[str]) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    check(cli("--config", "bad.yaml"), parts)


def test_experiment_file_that_is_no_text(cli, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    check(cli("--config", "bad.yaml"), ["bad.yaml", "not a text file"])


def test_experiment_file_that_is_a_folder(cli, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    check(cli("--config", "folder.yaml"), ["folder.yaml", "directory"])


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_results_folder_is_a_file(cli, tmp_path: Path, place: str) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    check(cli("--results", place, "--methods", "fedavg"), ["--results", "taken is a file"])


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a read-only file system")
def test_results_folder_cannot_be_written(cli) -> None:
    answer = cli("--results", "/proc/results", "--methods", "fedavg", "--profile", "smoke")
    check(answer, ["/proc/results"])


def test_cuda_asked_for_and_absent(cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    check(cli("--device", "cuda", "--methods", "fedavg"), ["cuda", "not available"])


def test_clean_does_not_ask_a_pipe(cli, tmp_path: Path) -> None:
    (tmp_path / "results" / ".cache" / "client").mkdir(parents=True)
    answer = cli("clean", "--cache")
    check(answer, ["--yes"])
    assert (tmp_path / "results" / ".cache" / "client").is_dir()


def idx(kind: int, *sizes: int, count: int | None = None) -> bytes:
    """Return an IDX file of zeros; ``count`` bytes of data instead of the right number."""
    total = 1
    for size in sizes:
        total *= size
    header = struct.pack(f">HBB{len(sizes)}I", 0, kind, len(sizes), *sizes)
    return header + bytes(total if count is None else count)


GOOD = {
    "train-images-idx3-ubyte": idx(8, 60, 28, 28),
    "train-labels-idx1-ubyte": idx(8, 60),
    "t10k-images-idx3-ubyte": idx(8, 20, 28, 28),
    "t10k-labels-idx1-ubyte": idx(8, 20),
}
DAMAGE = {
    "bad magic": ("train-images-idx3-ubyte", b"\x01\x02" + GOOD["train-images-idx3-ubyte"][2:]),
    "truncated": ("train-images-idx3-ubyte", idx(8, 60, 28, 28, count=1000)),
    "counts disagree": ("train-labels-idx1-ubyte", idx(8, 59)),
    "empty": ("t10k-labels-idx1-ubyte", b""),
    "damaged gzip": ("t10k-images-idx3-ubyte.gz", gzip.compress(idx(8, 20, 28, 28))[:-20]),
}


@pytest.mark.parametrize(("name", "content"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_data(cli, tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "data" / "fashion_mnist"
    folder.mkdir(parents=True)
    for good, right in GOOD.items():
        (folder / good).write_bytes(right)
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(content)
    answer = cli(
        *("--methods", "fedavg", "--datasets", "fashion_mnist", "--data-root", "data"),
        *("--clients", "2", "--quiet"),
    )
    check(answer, [str(Path("data") / "fashion_mnist" / name)])


def test_missing_data(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy"):  # nobody listens there: no download
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv(variable.upper(), "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies it was made with
    monkeypatch.setattr("datasets.fetching.time.sleep", lambda _: None)  # between two tries
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ONESHOT_FL_DATA", raising=False)
    answer = cli("--methods", "fedavg", "--datasets", "mnist", "--data-root", "nowhere")
    check(answer, ["'mnist' not found", "nowhere", "download"])


INCEPTION = ("--methods", "fedavg", "--profile", "smoke", "--extractors", "classifier", "inception")


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have no Inception weights, and no network; return what was asked of it."""
    import torch

    asked: list[str] = []

    def offline(url: str, *_: object, **__: object) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.delenv("ONESHOT_FL_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return asked


def test_missing_inception_weights(cli, tmp_path: Path, no_weights: list[str]) -> None:
    answer = cli(*INCEPTION, "--quiet")
    check(answer, ["no network", "--inception-weights FILE", "--extractors classifier"])
    assert not list((tmp_path / "results").rglob("record.json")), "nothing was run first"
    assert len(no_weights) == 1


def test_a_dry_run_only_says_that_inception_weights_are_missing(
    cli, tmp_path: Path, no_weights: list[str]
) -> None:
    answer = cli(*INCEPTION, "--dry-run")
    assert answer.status == 0
    assert "Inception weights are not here yet (ONESHOT_FL_INCEPTION is not set" in answer.out
    assert not no_weights


def test_a_file_that_holds_no_inception_weights(cli, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    answer = cli(*INCEPTION, "--quiet", "--inception-weights", "weights.pth")
    check(answer, ["weights.pth holds no Inception weights"])


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--methods", "fedavgg"], "did you mean 'fedavg'?"),
        (["--alpha", "nan"], "alpha"),
        (["describe", "nobody"], "nobody"),
    ],
)
def test_in_a_process_of_its_own(shell, argv: list[str], part: str) -> None:
    check(shell(*argv), [part])


def test_every_key_has_a_flag_but_those_of_files_alone() -> None:
    from benchmark.experiment import ExperimentSpec

    flags = {action.dest for action in parser()._actions}
    assert set(ExperimentSpec.model_fields) - flags == {"description", "variants", "sweep"}
