"""Downloads: resumed where they broke off, checked, kept; from a server in this process."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage import InvalidRequest
from storage.errors import Damaged
from storage.sources.download import PUBLISHED, Published, fetch, fetch_published

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves CONTENT; breaks off after ``limit`` bytes of an answer; honours ranges or not."""

    limit = len(CONTENT)
    ranges = True
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.server.limit])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def published(server: Server, content: bytes = CONTENT) -> Published:
    url = f"http://127.0.0.1:{server.server_address[1]}/file"
    return Published(url, "file.bin", len(CONTENT), hashlib.sha256(content).hexdigest())


def test_a_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.limit = 300_000
    for _ in range(3):
        with pytest.raises(InvalidRequest, match="run it again to continue"):
            fetch(published(server), tmp_path)
    assert fetch(published(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.limit = False, 300_000
    with pytest.raises(InvalidRequest):
        fetch(published(server), tmp_path)
    server.limit = len(CONTENT)
    assert fetch(published(server), tmp_path).read_bytes() == CONTENT


def test_what_is_kept_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    assert fetch(published(server), tmp_path) == fetch(published(server), tmp_path)
    assert len(server.asked) == 1


def test_other_content_than_the_published_is_refused_and_removed(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(Damaged, match="sha256"):
        fetch(published(server, b"other"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_taken_than_was_published(server: Server, tmp_path: Path) -> None:
    url, part = published(server).url, CONTENT[:1000]
    file = Published(url, "file.bin", len(part), hashlib.sha256(part).hexdigest())
    assert fetch(file, tmp_path).read_bytes() == part


def test_a_server_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = Published("http://127.0.0.1:9/file", "file.bin", 1, "")
    with pytest.raises(InvalidRequest, match=r"127\.0\.0\.1:9/file cannot be downloaded"):
        fetch(gone, tmp_path)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match="qm9:uncharacterized"):
        fetch_published("qm9:nothing")


def test_the_addresses_are_whole() -> None:
    for files in PUBLISHED.values():
        for file in files.values():
            assert file.url.startswith("https://")
            assert len(file.sha256) == 64
            assert file.size > 0
