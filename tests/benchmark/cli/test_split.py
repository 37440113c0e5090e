"""``split``: counts, table and picture of a partition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import load
from reports.split import SplitPanel, count_table, draw_splits, save_splits


def panel(clients: int = 3, classes: int = 4, widths: tuple[str, ...] = ()) -> SplitPanel:
    counts = np.arange(clients * classes, dtype=np.int64).reshape(clients, classes)
    return SplitPanel("a split", counts, tuple(f"c{index}" for index in range(classes)), widths)


def test_count_table_sums() -> None:
    columns, rows = count_table(panel(widths=("1", "1/2", "1")))
    assert columns == ["client", "width", "c0", "c1", "c2", "c3", "samples", "classes"]
    assert rows[0] == [0, "1", 0, 1, 2, 3, 6, 3]
    assert rows[-1] == ["all", "", 12, 15, 18, 21, 66, 4]


def test_count_table_without_widths() -> None:
    columns, rows = count_table(panel())
    assert "width" not in columns
    assert all(len(row) == len(columns) for row in rows)


def test_bubbles_have_areas_in_proportion_to_counts() -> None:
    counts = np.array([[100, 0], [25, 50]], dtype=np.int64)
    axes = draw_splits([SplitPanel("x", counts, ("a", "b"))]).axes[0]
    (bubbles,) = axes.collections
    areas = np.square(bubbles.get_widths())
    assert len(areas) == 3  # nothing is drawn where nothing is held
    assert np.allclose(areas / areas.max(), [1.0, 0.25, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_panels_share_one_scale() -> None:
    big = SplitPanel("big", np.array([[400]], dtype=np.int64), ("a",))
    small = SplitPanel("small", np.array([[100]], dtype=np.int64), ("a",))
    first, second = draw_splits([big, small]).axes
    ratio = first.collections[0].get_widths() / second.collections[0].get_widths()
    assert np.allclose(ratio, 2.0)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_files_are_written_whole(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"split{suffix}"
    save_splits([panel(), panel(20, 3)], target)
    assert target.stat().st_size > 1000
    first = target.read_bytes()
    save_splits([panel(), panel(20, 3)], target)
    assert target.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 classes"):
        SplitPanel("x", np.zeros((3, 4), dtype=np.int64), ("a", "b"))
    with pytest.raises(ValueError, match="1 widths for 3 clients"):
        panel(widths=("1",))
    with pytest.raises(ValueError, match="no partition"):
        draw_splits([])


def test_command_shows_what_the_engine_would_deal(cli, tmp_path: Path) -> None:
    from benchmark.experiment import ExperimentSpec
    from benchmark.federation.data import load_scenario_data

    flags = ("--profile", "smoke", "--alpha", "0.1", "--clients", "4", "--seeds", "3")
    answer = cli("split", *flags, "--widths", "1,1/2", "--output", "plots/split.png")
    assert answer.status == 0, answer.err
    assert (tmp_path / "plots" / "split.png").read_bytes().startswith(b"\x89PNG")
    settings = {"datasets": "digits", "train_samples": 300, "holdout": 0.1, "clients": 4}
    (scenario,) = ExperimentSpec.parse(
        {**settings, "alpha": 0.1, "seeds": 3, "widths": "1,1/2"}, "test"
    ).scenarios()
    split = load_scenario_data(scenario, None, None).partition
    assert split.digest[:16] in answer.out
    rows = [line.split() for line in answer.out.splitlines() if line[:1].isdigit()]
    assert [[int(cell) for cell in row[2:12]] for row in rows] == split.counts.tolist()
    assert sorted(row[1] for row in rows) == ["1", "1", "1/2", "1/2"]


def test_command_reports_samples_that_were_moved(cli) -> None:
    answer = cli(
        *("split", "--profile", "smoke", "--alpha", "0.01", "--clients", "60"),
        *("--output", "s.png", "--log-level", "error"),
    )
    assert answer.status == 0, answer.err
    assert "topped up from the largest clients" in answer.out


def test_several_values_make_several_panels(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("split", "--profile", "smoke", "--alpha", "0.1", "1", "--output", "s.pdf")
    loads: list[tuple[str, object]] = []

    def counted(name: str, **settings: Any) -> Any:
        loads.append((name, settings["cache_dir"]))
        return load(name, **settings)

    monkeypatch.setattr("datasets.load", counted)
    answer = cli(*flags, "--results", "kept")
    assert loads == [("digits", Path("kept") / ".cache" / "data")], "once, and as runs do"
    (entry,) = (tmp_path / "kept" / ".cache" / "data").glob("digits-32px-*")
    assert entry.is_dir()
    assert answer.out.count("split id") == 2
    assert "alpha 0.1" in answer.out
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF")
