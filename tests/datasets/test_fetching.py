"""Downloads against a server of this machine: ranges, broken connections, wrong content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from datasets import DataError
from datasets.fetching import Patience, Remote, differing, fetch, fetch_all

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK = Patience(attempts=3, pause=0.001, timeout=5.0)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under names that say how it behaves."""

    requests: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.requests.append((self.path, asked))
        behaviour = self.path.strip("/")
        if behaviour == "gone":
            self.send_error(404)
        elif behaviour == "busy":
            self.send_error(503)
        else:
            self._give(behaviour, asked)

    def _give(self, behaviour: str, asked: str | None) -> None:
        body = {"other": CONTENT[::-1], "short": CONTENT[:1000]}.get(behaviour, CONTENT)
        start = 0
        if asked is not None and behaviour not in ("no-ranges", "other"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if behaviour == "shifted":
                start -= 10
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + 70_000 if behaviour in ("breaks", "shifted", "no-ranges-breaks") else None
        if behaviour == "dead" and start:
            end = start
        self.wfile.write(body[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def remote(*urls: str, content: bytes = CONTENT) -> Remote:
    return Remote("file.bin", urls, hashlib.md5(content).hexdigest(), len(content))


def test_plain_download(server: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch_all([remote(f"{server}fine")], tmp_path / "new", lambda *all: seen.append(all), QUICK)
    assert (tmp_path / "new" / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.bin"]
    assert seen[0] == ("file.bin", 0, len(CONTENT))
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    fetch(remote(f"{server}fine"), tmp_path / "new" / "file.bin", patience=QUICK)
    assert len(Handler.requests) == 1  # what is there is not fetched again


def test_goes_on_where_an_earlier_command_stopped(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    fetch(remote(f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert Handler.requests == [("/fine", "bytes=123456-")]


def test_a_server_that_breaks_off_is_asked_for_the_rest(server: str, tmp_path: Path) -> None:
    fetch(remote(f"{server}breaks"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    starts = [asked for _, asked in Handler.requests]
    assert starts == [None, *(f"bytes={70_000 * k}-" for k in range(1, 5))]


def test_a_whole_part_needs_no_byte(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(remote(f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    fetch(remote(f"{server}no-ranges"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 1000, CONTENT + b"more"])
def test_a_part_of_something_else_costs_a_second_start(
    server: str, tmp_path: Path, part: bytes
) -> None:
    (tmp_path / "file.bin.part").write_bytes(part)
    fetch(remote(f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_the_mirror_is_asked_when_the_first_refuses(server: str, tmp_path: Path) -> None:
    fetch(remote(f"{server}gone", f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert [path for path, _ in Handler.requests] == ["/gone", "/fine"]


def test_the_mirror_is_asked_when_the_first_has_another_file(server: str, tmp_path: Path) -> None:
    fetch(remote(f"{server}other", f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert Handler.requests == [("/other", None), ("/fine", None)], "nothing of it is continued"


def test_each_address_is_named_with_what_it_gave(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/gone: HTTP 404.*; http\S+/other: checksum md5"):
        fetch(remote(f"{server}gone", f"{server}other"), tmp_path / "file.bin", patience=QUICK)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_never_gets_its_name(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"checksum md5 .* instead of the published"):
        fetch(remote(f"{server}other"), tmp_path / "file.bin", patience=QUICK)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_replaced(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    fetch(remote(f"{server}fine"), tmp_path / "file.bin", patience=QUICK)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("behaviour", "message", "kept"),
    [
        ("gone", "HTTP 404", 50_000),
        ("busy", "HTTP 503 .*3 times in a row", 50_000),
        ("shifted", "asked for byte 50000, the server answered", 50_000),
        ("dead", "broke off at byte 50000 of 300000", 50_000),
    ],
)
def test_what_arrived_is_kept_when_nothing_helps(
    server: str, tmp_path: Path, behaviour: str, message: str, kept: int
) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:50_000])
    with pytest.raises(DataError, match=message) as caught:
        fetch(remote(server + behaviour), tmp_path / "file.bin", patience=QUICK)
    assert "50000 bytes are kept" in str(caught.value)
    assert (tmp_path / "file.bin.part").stat().st_size == kept


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"refused.*, 3 times in a row"):
        fetch(remote("http://127.0.0.1:9/x"), tmp_path / "file.bin", patience=QUICK)


def test_a_place_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="can't be written"):
        fetch(remote(f"{server}fine"), tmp_path / "taken" / "file.bin", patience=QUICK)
    (tmp_path / "file.bin.part").mkdir()
    with pytest.raises(DataError, match=r"file.bin.part: can't be written"):
        fetch(remote(f"{server}fine"), tmp_path / "file.bin", patience=QUICK)


@pytest.mark.parametrize(
    ("content", "repacked", "differs"),
    [
        (CONTENT, False, False),
        (CONTENT[::-1], False, True),
        (CONTENT[::-1], True, True),
        (CONTENT[:-1], False, True),
        (CONTENT[:-1], True, False),  # in another packing, of which no checksum is known
    ],
)
def test_a_file_that_is_not_the_published_one_is_found(
    tmp_path: Path, content: bytes, repacked: bool, differs: bool
) -> None:
    file, other = tmp_path / "file.bin", tmp_path / "unpacked"
    file.write_bytes(content)
    other.write_bytes(b"")
    published = replace(remote(), repacked=repacked)
    assert differing([published], [file, other]) == ([file] if differs else [])
