"""README's table is that of the records, and what README and FINDINGS link to is there."""

from __future__ import annotations

import json
import re
import shlex
import statistics
from pathlib import Path

import pandas as pd
import pytest

from benchmark.cli import verb_run
from benchmark.cli.flags import experiment_of

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
PAGES = ("README.md", "reports/FINDINGS.md", "reports/EVIDENCE.md")
ROWS = {
    "Mosaic": "mosaic",
    "DENSE": "dense",
    "FedAvg, one round": "fedavg",
    "Co-Boosting": "co_boosting",
    "FedRolex, one round": "fedrolex",
    "centralised training": "centralized",
    "best single client": "best_client",
    "ensemble of all clients": "ensemble",
    "logits by class share": "class_share",
    "the ensemble, distilled on real images": "compose",
}


def headline() -> dict[str, list[str]]:
    """Return the cells of README's first table by the method's name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| garments.*?\n\n", text, re.DOTALL)
    assert table is not None
    rows = [line.strip("| ").split("|") for line in table[0].splitlines()[2:] if line]
    return {row[0].strip(" *"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_headline_table_is_that_of_the_records() -> None:
    frame = pd.read_csv(REFERENCE / "garments10" / "report" / "accuracy.csv")
    records = frame.set_index("method")
    shown = headline()
    assert set(shown) == set(ROWS)
    for name, (seeds, mean, *teacher) in shown.items():
        record = records.loc[ROWS[name]]
        values = [100 * value for value in json.loads(record["values"]).values()]
        # A half may be rounded either way: the record has four digits, the table three.
        said = [float(value) for value in seeds.split(",")]
        assert said == pytest.approx(values, abs=0.0501), name
        said = [float(value) for value in mean.split("±")]
        assert said == pytest.approx([statistics.mean(values), statistics.stdev(values)], abs=0.051)
        if teacher and teacher[0]:
            wanted = 100 * record[["teacher_accuracy_mean", "teacher_accuracy_sd"]].astype(float)
            said = [float(value) for value in teacher[0].split("±")]
            assert said == pytest.approx(wanted.tolist(), abs=0.051), name


def commands() -> list[list[str]]:
    """Return the arguments of README's commands that run experiments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    spans = [" ".join(span.split()) for span in re.findall(r"`(python -m [^`]*)`", text)]
    found = [shlex.split(line, comments=True) for line in (*blocks.splitlines(), *spans)]
    starts = [words[3:] for words in found if words[:3] == ["python", "-m", "benchmark"]]
    runs = [words for words in starts if words and words[0].startswith("-")]
    return [words for words in runs if "trials.yaml" not in words]  # the reader's own file


def test_commands_of_reference_records_ask_for_their_precision() -> None:
    named = set()
    for words in commands():
        asked = experiment_of(verb_run.parser().read(words))
        for path in (REFERENCE / asked.experiment).glob("*/record.json"):
            spec = json.loads(path.read_text(encoding="utf-8"))["spec"]
            # `auto` is another one on another machine: nothing of the records would be found.
            assert spec["compute"]["precision"] == asked.precision, " ".join(words)
            named.add(asked.experiment)
    assert {"digits", "garments5", "garments10", "mosaic_gap", "study_main"} <= named


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_what_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert missing == []


def test_no_reference_experiment_has_records_that_its_manifest_does_not_name() -> None:
    folders = [path.parent for path in REFERENCE.glob("*/experiment.json")]
    assert len(folders) > 10
    for folder in folders:
        cells = json.loads((folder / "experiment.json").read_text())["cells"]
        named = {cell["run_id"] for cell in cells.values()}
        there = {path.parent.name for path in folder.glob("*/record.json")}
        assert there
        assert there <= named, folder.name
