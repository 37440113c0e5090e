"""The tables of FINDINGS and EVIDENCE are those of the records, rounded once."""

from __future__ import annotations

import functools
import re
import statistics
from pathlib import Path

import pytest

from benchmark.studies.lead import Lead, leads
from reports.grid import Grid, GridCell, build_grid
from reports.load import load
from reports.scores import TEACHER_ACCURACY
from reports.statistics import summarize

ROOT = Path(__file__).resolve().parents[1]
FINDINGS, EVIDENCE = ROOT / "reports" / "FINDINGS.md", ROOT / "reports" / "EVIDENCE.md"

CLAIM = 12
"""Points over the best other method, of Mosaic's paper."""

STEPS, RECIPE = "study_warm_start_steps", "study_warm_start_recipe"
PUBLISHED = "study_warm_start_published"
SETTINGS = (
    ("ten clients", "garments10", ""),
    ("five clients", "garments5", ""),
    ("alpha 0.01", "study_main", "α = 0.01"),
    ("alpha 1.0", "study_main", "α = 1"),
    ("alpha 0.1", "study_main", "α = 0.1"),
    ("2,500 steps", "study_student_published", "α = 0.1, 25600 generated images"),
    ("the same at alpha 1.0", "study_student_published", "α = 1, 25600 generated images"),
    ("every method tuned", "study_tuned", ""),
    ("five widths", "study_widths", ""),
    ("group norm", "study_group_norm", ""),
    ("students from the average", STEPS, "0 warm-up rounds"),
    ("the same after 10 rounds of ten steps", STEPS, "10 warm-up rounds"),
    ("after 50 rounds of ten steps", STEPS, "50 warm-up rounds"),
    ("10 rounds, then 8 local epochs", RECIPE, "10 warm-up rounds"),
    ("50 rounds, then 8 local epochs", RECIPE, "50 warm-up rounds"),
    ("10 rounds, 8 epochs, 2,500 steps", PUBLISHED, "10 warm-up rounds"),
    ("50 rounds, the same", PUBLISHED, "50 warm-up rounds"),
)
"""Each row's first words, experiment and scenario."""

NAMES = {
    "Mosaic": "mosaic",
    "DENSE": "dense",
    "Co-Boosting": "co_boosting",
    "FedAvg": "fedavg",
    "FedRolex": "fedrolex",
    "ensemble": "ensemble",
    "class share": "class_share",
}
TEACHERS = {
    "mean of logits": "mean",
    "class share of logits": "class share",
    "boosted": "boosted",
    "experts": "experts",
    "experts + meta": "experts + meta",
}
LOSSES = {"without any of the three": "adversarial alone"}
"""Rows of the table of losses that are not called as their labels are."""
IMAGES = ("DENSE", "Co-Boosting", "clients' generators", "real")


@functools.cache
def grid(experiment: str) -> Grid:
    """Return a reference experiment's grid."""
    return build_grid(load(ROOT / "results" / "reference" / experiment))


def tables(page: Path, first: str) -> list[list[list[str]]]:
    """Return the cells, below the header, of the page's tables whose header starts so."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE)
    rows = [
        [[cell.strip(" *") for cell in line.strip(" |").split("|")] for line in block.splitlines()]
        for block in blocks
    ]
    return [block[2:] for block in rows if block[0][0].startswith(first)]


def numbers(cell: str) -> list[float]:
    """Return the numbers of a cell in their order."""
    return [float(found) for found in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", cell)]


def of_record(said: float, exact: float, digits: int) -> bool:
    """Return whether this is the number, rounded once; a half may go either way."""
    return abs(said - exact) <= 0.5 * 10**-digits + 1e-6


def column(experiment: str, scenario: str) -> dict[str, GridCell]:
    """Return a scenario's cells by method, or by label where a row has settings of its own."""
    one = grid(experiment)
    headers = {", ".join(one.axes.header(place)): place for place in one.scenarios}
    cells = {row.label: cell for row, cell in one.column(headers[scenario])}
    if "mosaic (meta=prototypes)" in cells:  # as it is by itself
        cells["mosaic"] = cells["mosaic (meta=prototypes)"]
    return cells


def percent(cell: GridCell, metric: str = "accuracy") -> dict[str, float]:
    """Return a cell's values by split."""
    return {split: 100 * value for split, value in cell.values(metric).items()}


def across(scenario: str) -> tuple[Lead, Lead]:
    """Return Mosaic's lead with its published student over the methods of the cut's experiment."""
    own = percent(column(PUBLISHED, scenario)["mosaic"])
    cut = column(RECIPE, scenario)
    others = ("FedAvg", "FedRolex", "DENSE", "Co-Boosting")
    rivals = {name: percent(cut[NAMES[name]]) for name in others}
    best = max(rivals, key=lambda name: statistics.mean(rivals[name].values()))
    over_mean = {split: own[split] - rivals[best][split] for split in own}
    over_each = {split: own[split] - max(one[split] for one in rivals.values()) for split in own}
    return Lead(scenario, "mosaic", (best,), over_mean), Lead(scenario, "mosaic", (), over_each)


def judged(experiment: str, scenario: str) -> tuple[Lead, Lead]:
    """Return what FINDINGS compares in a setting: over the best in the mean, and of each split."""
    if experiment == PUBLISHED:
        return across(scenario)
    [pair] = [
        pair
        for pair in leads(grid(experiment), "mosaic")
        if pair[0].scenario == (scenario or "all") and "native" not in pair[0].label
    ]
    return pair


def test_the_leads_are_those_of_the_records() -> None:
    [rows] = tables(FINDINGS, "setting")
    assert len(rows) == len(SETTINGS)
    excluded = 0
    for (setting, *cells, verdict), (name, experiment, scenario) in zip(
        rows, SETTINGS, strict=True
    ):
        assert setting.startswith(name)
        inside = []
        for cell, lead in zip(cells, judged(experiment, scenario), strict=True):
            *points, low, high = numbers(cell.replace(" to ", " "))
            assert len(points) == 3, setting
            pairs = zip(points, lead.points.values(), strict=True)
            assert all(of_record(said, exact, 1) for said, exact in pairs), (setting, lead.text())
            found = summarize(list(lead.points.values()))
            assert found.low is not None
            assert found.high is not None
            assert of_record(low, found.low, 0), (setting, lead.text())
            assert of_record(high, found.high, 0), (setting, lead.text())
            inside.append(found.low <= CLAIM <= found.high)
        wanted = {(True, True): "yes", (False, False): "no", (True, False): "1st only"}
        assert verdict == wanted[inside[0], inside[1]], setting
        excluded += not any(inside)
    words = FINDINGS.read_text(encoding="utf-8")
    assert (len(rows), excluded) == (17, 5)
    assert "Shown in none of the seventeen settings below. Five exclude 12 points" in words


@pytest.mark.parametrize(
    ("page", "number", "experiment"),
    [
        (FINDINGS, 0, "study_attribution_random"),
        (EVIDENCE, 0, "study_attribution_random"),
        (EVIDENCE, 1, "study_attribution_aggregate"),
    ],
)
def test_the_tables_of_teachers_and_images_are_those_of_the_records(
    page: Path, number: int, experiment: str
) -> None:
    rows = tables(page, "teacher (its accuracy")[number]
    assert len(rows) == len(TEACHERS)
    cells = column(experiment, "")
    for named, *students in rows:
        name, _, own = named.rstrip(")").rpartition(" (")
        found = [cells[f"{TEACHERS[name]}, images: {source}"] for source in IMAGES]
        if name == "boosted":  # another teacher for each source of images
            assert_says(own, [spread(cell, TEACHER_ACCURACY)[0] for cell in found], named)
        else:
            assert_says(own, spread(found[0], TEACHER_ACCURACY), named)
        for said, cell in zip(students, found, strict=True):
            assert_says(said, spread(cell), named)


def test_the_table_of_losses_is_that_of_the_records() -> None:
    [rows] = [block for block in tables(EVIDENCE, "") if block[0][0].startswith("all terms")]
    own = column("study_losses", "")
    base = percent(own["mosaic"])
    assert len(rows) == sum(row.method == "mosaic" for row in grid("study_losses").rows)
    for name, students, over, *_ in rows:
        label = "mosaic" if name.startswith("all terms") else f"mosaic {LOSSES.get(name, name)}"
        exact = percent(own[label])
        assert_says(students, list(exact.values()), name)
        if label != "mosaic":
            *points, low, high = numbers(over.replace(" to ", " "))
            differences = [exact[split] - base[split] for split in base]
            assert_says(" ".join(map(str, points)), differences, name)
            found = summarize(differences)
            assert found.low is not None
            assert found.high is not None
            assert of_record(low, found.low, 0), name
            assert of_record(high, found.high, 0), name


def test_the_table_of_three_alphas_is_that_of_the_records() -> None:
    [rows] = tables(EVIDENCE, "alpha")
    places = ("α = 0.01", "α = 0.1", "α = 1")
    for left, *cells in rows:
        for name, three in ((left, cells[:3]), (cells[3], cells[4:])):
            for place, said in zip(places, three, strict=True):
                cell = column("study_main", place).get(NAMES.get(name, ""))
                if cell is None:  # a network's accuracy on images, of other records
                    assert name == "its images"
                    continue
                assert_says(said, spread(cell), f"{name}, {place}")


@pytest.mark.parametrize(("number", "experiment"), [(0, STEPS), (1, RECIPE)])
def test_the_tables_of_warm_ups_are_those_of_the_records(number: int, experiment: str) -> None:
    rows = tables(EVIDENCE, "R")[number]
    titles = ("FedAvg", "bytes", "ensemble", "FedRolex", "DENSE", "Co-Boosting", "Mosaic")
    for warm_up, *cells, teacher in rows:
        rounds = int(warm_up)
        here = column(experiment, f"{rounds} warm-up round{'' if rounds == 1 else 's'}")
        for title, said in zip(titles, cells, strict=True):
            if title == "bytes":
                cell = column(experiment, f"{rounds + 14} warm-up rounds")["fedavg"]
            else:
                cell = here[NAMES[title]]
            assert_says(said.partition(" (")[0], spread(cell), f"{title}, R = {rounds}")
        assert_says(teacher, spread(here["mosaic"], TEACHER_ACCURACY), f"teacher, R = {rounds}")


def spread(cell: GridCell, metric: str = "accuracy") -> list[float]:
    """Return mean and standard deviation over three splits, in percent."""
    found = list(percent(cell, metric).values())
    assert len(found) == 3
    return [statistics.mean(found), statistics.stdev(found)]


def assert_says(cell: str, exact: list[float], where: str) -> None:
    """Assert that a cell has these numbers, with one digit."""
    said = numbers(cell)
    assert len(said) == len(exact), (where, cell)
    assert all(of_record(a, b, 1) for a, b in zip(said, exact, strict=True)), (where, cell, exact)
