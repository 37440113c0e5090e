"""The page in a real browser: no network, no error; sorting, filters, cells, keys, phone, print."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_lab import Lab, judged, png, undrawn

from benchmark.store import Status
from reports.api import write_report

playwright = pytest.importorskip("playwright.sync_api")

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    with playwright.sync_playwright() as running:
        try:
            made = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser here: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of two alphas with a reference, a failed run, an unfinished one, and images."""
    lab = Lab(tmp_path_factory.mktemp("page") / "made-up")
    for alpha, shift in ((0.1, 0.0), (1.0, 0.3)):
        for seed in range(3):
            where = {"partition__alpha": alpha}
            lab.add("averaging", seed, 0.30 + shift + seed / 100, history=[0.1, 0.2], **where)
            lab.add(
                "distilling",
                seed,
                0.45 + shift + seed / 100,
                teacher=0.6,
                up=5000,
                history=[0.2, 0.4],
                generation=[judged()],
                grids={"grid-client-0-generated.png": png()},
                warnings=["made up"],
                details={"own_key": {"rate": 0.125}, "own_curve": [[n, 0.5] for n in range(99)]},
                **where,
            )
            lab.add("everything", seed, 0.9, rounds=2, **where)
    lab.add("counting", 0, 0.5, partition__alpha=0.1, label=HOSTILE)
    failed = Status.FAILED
    lab.add("counting", 1, status=failed, reason=HOSTILE, partition__alpha=0.1, label=HOSTILE)
    folder = lab.plan()
    with undrawn():
        write_report(folder)
    return folder / "report" / "index.html"


@pytest.fixture
def page(browser: Any, made: Path) -> Iterator[Any]:
    """The page opened from disk; any error or request in it fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else 0)
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on(
        "request",
        lambda r: (
            trouble.append(r.url) if not r.url.startswith(("data:", "blob:", made.as_uri())) else 0
        ),
    )
    opened.goto(made.as_uri())
    yield opened
    assert trouble == []
    context.close()


def labels(page: Any) -> list[str]:
    found: list[str] = page.locator("#board tbody th").all_inner_texts()
    return found


def accuracies(page: Any) -> list[str]:
    found: list[str] = page.locator("#board tbody button.open").all_inner_texts()
    return found


def show_all(page: Any) -> None:
    page.locator("select[name='partition.alpha']").select_option("")


def drawn(page: Any, plot: str) -> list[list[float]]:
    """Return the x values of each of a plot's traces."""
    found: list[list[float]] = page.evaluate(
        f"document.getElementById('{plot}').data.map((trace) => Array.from(trace.x))"
    )
    return found


def test_one_scenario_is_ranked_at_first_and_all_can_be(page: Any, made: Path) -> None:
    chosen = page.locator("select[name='partition.alpha']")
    assert chosen.input_value() == "0.1"
    assert page.locator("#count").inner_text() == "4 of 7 rows"
    assert all(len(points) == 1 for points in drawn(page, "by-bytes"))
    along = drawn(page, "by-alpha")
    assert [0.1, 1] in along, "what is drawn along alpha has all of its values"
    show_all(page)
    assert len(labels(page)) == 7
    assert any(len(points) == 2 for points in drawn(page, "by-bytes"))
    assert drawn(page, "by-alpha") == along
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert chosen.input_value() == ""
    page.get_by_role("button", name="Reset").click()
    assert chosen.input_value() == "0.1"
    assert page.url == made.as_uri()


def test_signs_stand_after_names_in_board_and_legends(page: Any) -> None:
    assert "everything¶" in labels(page)
    for plot in ("by-bytes", "by-alpha"):
        names = page.evaluate(f"document.getElementById('{plot}').data.map((one) => one.name)")
        assert {"everything¶", "averaging"} <= set(names)


def test_the_best_stand_first_and_every_row_is_there(page: Any) -> None:
    show_all(page)
    assert len(labels(page)) == 7
    assert accuracies(page)[:4] == ["90.00", "90.00", "76.00", "61.00"]
    assert page.locator("#board tr.reference").count() == 2
    assert page.locator("#by-bytes .main-svg").count() > 0
    assert page.locator("#by-alpha .main-svg").count() > 0


def test_sorting_by_click_and_back(page: Any) -> None:
    show_all(page)
    button = page.get_by_role("button", name="accuracy %")
    header = page.locator("th", has=button)
    assert header.get_attribute("aria-sort") == "descending"
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert accuracies(page)[:2] == ["31.00", "46.00"]
    # A cell without a mean stands last, whichever way.
    assert "failed" in accuracies(page)[-1]
    page.get_by_role("button", name="method").click()
    assert labels(page)[-1] == "everything¶"


def test_filters_leave_the_right_rows_and_stay_in_the_address(page: Any, made: Path) -> None:
    page.locator("select[name='partition.alpha']").select_option("1")
    assert page.locator("#count").inner_text() == "3 of 7 rows"
    assert "partition.alpha=1" in page.url
    page.locator("select[name='partition.alpha']").select_option("0.1")
    page.locator("input[name='references']").uncheck()
    assert set(labels(page)) == {"averaging", "distilling", HOSTILE}
    page.locator("select[name='seeds']").select_option("3")
    assert set(labels(page)) == {"averaging", "distilling"}
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert set(labels(page)) == {"averaging", "distilling"}
    page.get_by_role("button", name="Reset").click()
    assert len(labels(page)) == 4


def test_a_cell_opens_its_runs_and_a_run_its_record(page: Any) -> None:
    show_all(page)
    row = page.locator("#board tbody tr", has_text="distilling").first
    row.locator("button.open").click()
    assert page.locator("#panel-title").inner_text() == "distilling, α = 1"
    assert page.locator("#panel-body tbody tr").count() == 3
    page.get_by_role("button", name="seed 0").click()
    body = page.locator("#panel-body")
    text = body.inner_text()
    for part in (
        "own_key.rate",
        "0.125",
        "own_curve",
        "[[0,0.5],[1,0.5]",
        "partition.alpha",
        "versions.torch",
        "made up",
        "pooled.fid",
        "hardware.cpu",
    ):
        assert part in text
    folded = body.locator("dd details")
    assert "[98,0.5]" not in folded.inner_text()
    folded.locator("summary").click()
    assert "[98,0.5]" in folded.inner_text()
    assert body.locator("#history .main-svg").count() > 0
    assert body.locator(".grids img").count() == 1
    page.get_by_role("button", name="← runs").click()
    page.get_by_role("button", name="seed 1").click()
    assert body.locator("#history .main-svg").count() > 0
    assert body.get_by_role("link", name="history.csv").count() == 1
    assert "pictures of the first finished seed alone" in body.inner_text()
    assert body.locator("a[href$='grid-client-0-generated.png']").count() == 1
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#panel").is_visible()


def test_it_works_with_the_keyboard_alone(page: Any) -> None:
    page.get_by_role("button", name="seeds").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "seeds"
    page.keyboard.press("Tab")  # into the first row
    page.keyboard.press("Enter")
    assert page.locator("#panel").is_visible()
    assert page.evaluate("document.activeElement.id") == "panel-title"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#panel-back").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#panel").is_visible()


def test_what_plugins_write_stays_text(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    assert HOSTILE in page.locator("#leaderboard").inner_text()
    assert HOSTILE in page.locator("#tables").inner_text()


def test_it_can_be_read_on_a_phone_and_printed(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert page.locator("#tables table").first.is_visible()


def test_equal_records_make_equal_pages(made: Path) -> None:
    text = made.read_bytes()
    made.unlink()
    write_report(made.parent.parent)
    assert made.read_bytes() == text
    content = re.search(r'id="content">(.*?)</script>', text.decode(), re.DOTALL)
    assert content is not None
    assert len(json.loads(content[1])["runs"]) == 20


@pytest.mark.slow
def test_a_thousand_records(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "many")
    for method in ("averaging", "distilling", "counting", "everything", "another"):
        for alpha in range(1, 11):
            for seed in range(20):
                lab.add(method, seed, 0.5, partition__alpha=alpha / 10, history=[0.1] * 10)
    folder = lab.plan()
    program = (
        "import sys, time; from pathlib import Path; began = time.perf_counter();"
        "from reports.api import write_report;"
        f"write_report(Path({str(folder)!r}), figures=False);"
        "assert 'torch' not in sys.modules; print(time.perf_counter() - began)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # The claim is ten seconds on an idle machine; a test machine is not idle.
    assert time.monotonic() - began < 60
    assert (folder / "report" / "index.html").is_file()
