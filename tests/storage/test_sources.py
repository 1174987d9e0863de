"""Where samples come from: each claim about folders, archives and object stores."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
import threading
import tracemalloc
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from storage import sources
from storage.errors import BadInput, InvalidRequest
from storage.readers import EXTENSIONS
from storage.sources import SourceFile, Unit, archives, fingerprint, read_many, read_units

discover = partial(sources.discover, extensions=EXTENSIONS)
CONTENT = {f"run/{number:02}.npy": f"content {number}".encode() * 50 for number in range(20)}
TAR_MODES = {
    ".tar": "w:",
    ".tar.gz": "w:gz",
    ".tgz": "w:gz",
    ".tar.bz2": "w:bz2",
    ".tar.xz": "w:xz",
}
ALL_ARCHIVES = [*TAR_MODES, ".zip"]


def put(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_bytes(
    content: dict[str, bytes], mode: str, change: Callable[..., None] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive_bytes(suffix: str, content: dict[str, bytes]) -> bytes:
    return zip_bytes(content) if suffix == ".zip" else tar_bytes(content, TAR_MODES[suffix])


def contents(units: list[Unit]) -> dict[str, bytes]:
    found = {}
    for unit, payload in read_units(units):
        assert not isinstance(payload, BadInput), payload
        found[unit.name] = b"".join(payload)
    return found


STEMS = {name.removesuffix(".npy"): data for name, data in CONTENT.items()}


def test_a_folder_is_searched_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    units = discover([str(put(tmp_path, CONTENT))])
    assert [unit.name for unit in units] == sorted(STEMS)
    assert contents(units) == STEMS


@pytest.mark.parametrize("suffix", ALL_ARCHIVES)
def test_members_of_an_archive_are_the_files_that_went_in(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"all{suffix}"
    path.write_bytes(archive_bytes(suffix, CONTENT))
    units = discover([str(path)])
    assert units.refused == []
    assert contents(units) == STEMS
    assert {unit.name: unit.files[0].read() for unit in units[3:6]} == {
        name: STEMS[name] for name in sorted(STEMS)[3:6]
    }


def test_archives_in_a_folder_carry_their_name_into_the_samples(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"1.npy": b"x"}))
    (tmp_path / "b.tar").write_bytes(tar_bytes({"1.npy": b"y"}, "w:"))
    assert contents(discover([str(tmp_path)])) == {"a.zip/1": b"x", "b.tar/1": b"y"}


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_consecutive_members_of_a_compressed_archive_take_one_pass(
    tmp_path: Path, suffix: str, note_openings: Callable[[], list[str]]
) -> None:
    path = tmp_path / f"all{suffix}"
    path.write_bytes(archive_bytes(suffix, CONTENT))
    units = discover([str(path)])
    opened = note_openings()
    assert contents(units) == STEMS
    assert opened == [str(path)]


def test_streaming_holds_one_member_at_a_time(tmp_path: Path) -> None:
    member = bytes(2**20)
    path = tmp_path / "large.tar.gz"
    path.write_bytes(tar_bytes({f"{i:02}.npy": member for i in range(24)}, "w:gz"))
    units = discover([str(path)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_many(file for unit in units for file in unit.files)) == 24
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(member)  # a member, its pieces while joined, and the decompressor's


def test_what_was_discovered_travels_to_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.gz"
    path.write_bytes(tar_bytes(CONTENT, "w:gz"))
    units = discover([str(path)])
    again = pickle.loads(pickle.dumps(list(units)))  # noqa: S301 (our own bytes)
    assert again == list(units)
    assert len(pickle.dumps(units[0])) < 1000


@pytest.mark.parametrize("pattern", ["run/0*.npy", "r*/0?.npy", "**/0*.npy"])
def test_a_glob_names_samples_below_its_fixed_part(tmp_path: Path, pattern: str) -> None:
    units = discover([f"{put(tmp_path, CONTENT)}/{pattern}"])
    prefix = "" if pattern.startswith("run/") else "run/"
    assert [unit.name for unit in units] == [f"{prefix}{number:02}" for number in range(10)]


def test_a_file_reached_twice_is_one_sample(tmp_path: Path) -> None:
    put(tmp_path, CONTENT)
    units = discover([str(tmp_path), str(tmp_path / "run"), f"{tmp_path}/run/*.npy"])
    assert [unit.name for unit in units] == sorted(STEMS)


def test_equal_names_from_several_sources_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    put(tmp_path, {"a/field.npy": b"1", "b/field.npy": b"2", "b/other.npy": b"3"})
    units = discover([str(tmp_path / "a" / "field.npy"), str(tmp_path / "b")])
    assert contents(units) == {"a/field": b"1", "b/field": b"2", "other": b"3"}
    reverse = discover([str(tmp_path / "b"), str(tmp_path / "a" / "field.npy")])
    assert contents(reverse) == contents(units)


def test_equal_stems_in_one_folder_keep_their_extension(tmp_path: Path) -> None:
    units = discover([str(put(tmp_path, {"x.npy": b"1", "x.flo": b"2", "y.npy": b"3"}))])
    assert contents(units) == {"x.npy": b"1", "x.flo": b"2", "y": b"3"}


def test_hidden_files_are_left_out_and_unknown_ones_counted(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"a.npy": b"1", ".b.npy": b"", ".c/d.npy": b"", "r.txt": b"", "s.txt": b"", "M": b""},
    )
    units = discover([str(tmp_path)])
    assert [unit.name for unit in units] == ["a"]
    assert units.ignored == {".txt": 2, "without extension": 1}


@pytest.mark.parametrize("pattern", ["", "*.npy"], ids=["folder", "glob"])
def test_a_file_that_is_renamed_while_it_is_listed_is_passed_over(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"a.npy": b"-", "going.npy": b"-"})
    is_file = Path.is_file

    def and_gone(path: Path) -> bool:
        found = is_file(path)
        if path.name == "going.npy":
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", and_gone)
    assert [unit.name for unit in discover([str(tmp_path / pattern)])] == ["a"]


def test_a_file_called_by_name_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    put(tmp_path, {"a.dat": b"1"})
    assert contents(discover([str(tmp_path / "a.dat")])) == {"a": b"1"}


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.npy", "nothing.tar.gz"])
def test_a_missing_source_is_named(tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere|nothing"):
        discover([str(tmp_path / source)])


def test_a_name_with_wildcards_in_it_is_found_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, {"run[1].npy": b"1", "run1.npy": b"2"})
    assert contents(discover([str(tmp_path / "run[1].npy")])) == {"run[1]": b"1"}


# --- zarr folders -----------------------------------------------------------------------


ZARR = {"x.zarr/zarr.json": b"{}", "x.zarr/.zattrs": b"{}", "x.zarr/u/c/0/0": b"chunk"}


@pytest.mark.parametrize("suffix", ["", *ALL_ARCHIVES])
def test_a_zarr_folder_is_one_file_with_one_fingerprint_wherever_it_lies(
    tmp_path: Path, suffix: str
) -> None:
    reference = discover([str(put(tmp_path / "plain", ZARR) / "x.zarr")])
    source = put(tmp_path / "plain", ZARR)
    if suffix:
        source = tmp_path / f"a{suffix}"
        source.write_bytes(archive_bytes(suffix, {**ZARR, "other.npy": b""}))
    units = [unit for unit in discover([str(source)]) if unit.name == "x"]
    assert fingerprint([units[0].files[0].read()]) == fingerprint([reference[0].files[0].read()])
    names = zipfile.ZipFile(io.BytesIO(units[0].files[0].read())).namelist()
    assert names == sorted(name.removeprefix("x.zarr/") for name in ZARR)
    assert units[0].nbytes == sum(map(len, ZARR.values()))


def test_a_zarr_folder_changes_its_tag_when_any_file_in_it_changes(tmp_path: Path) -> None:
    def tag() -> str | None:
        return discover([str(tmp_path)])[0].files[0].etag

    put(tmp_path, ZARR)
    tags = [tag(), tag()]
    put(tmp_path, {"x.zarr/u/c/0/1": b""})
    tags.append(tag())
    (tmp_path / "x.zarr/u/c/0/1").unlink()
    put(tmp_path, {"x.zarr/u/c/0/0": b"chunks"})
    tags.append(tag())
    assert tags[0] == tags[1]
    assert len(set(tags)) == 3


# --- components -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (("I_1.npy", "Q_1.npy", "U_1.npy"), "1"),
        (("run-I-1.npy", "run-Q-1.npy", "run-U-1.npy"), "run_1"),
        (("1_I.npy", "1_Q.npy", "1_U.mat"), "1"),
        (("I0001.npy", "Q0001.npy", "U0001.npy"), "0001"),
        (("Q2_I_1.npy", "Q2_Q_1.npy", "Q2_U_1.npy"), None),
        (("I/1.npy", "Q/1.npy", "U/1.npy"), "1"),
        (("x/I.npy", "x/Q.npy", "x/U.npy"), "x"),
        (("I.npy", "Q.npy", "U.npy"), "I_Q_U"),
    ],
)
def test_components_stack_the_files_that_differ_in_nothing_else(
    tmp_path: Path, names: tuple[str, ...], stem: str | None
) -> None:
    put(tmp_path, {name: name.encode() for name in names})
    units = discover([str(tmp_path)], components=("I", "Q", "U"))
    assert [unit.name for unit in units] == [stem or "Q2_1"]
    assert tuple(file.name for file in units[0].files) == names
    assert units.refused == []


def test_an_incomplete_stack_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    put(tmp_path, {"I_1.npy": b"", "Q_1.npy": b"", "I_2.npy": b"", "both.npy": b""})
    units = discover([str(tmp_path)], components=("I", "Q"))
    assert [unit.name for unit in units] == ["1", "both"]
    assert [(entry.name, entry.reason) for entry in units.refused] == [("2", "components")]
    assert "I_2.npy" in units.refused[0].message


def test_files_in_whose_names_one_component_alone_occurs_hold_them_all(tmp_path: Path) -> None:
    put(tmp_path, {"u_dim32.h5": b"", "u_dim64.h5": b""})
    units = discover([str(tmp_path)], components=("u", "v", "w"))
    assert [(unit.name, len(unit.files)) for unit in units] == [("u_dim32", 1), ("u_dim64", 1)]
    assert units.refused == []


def test_the_fingerprint_is_the_digest_that_sha256sum_prints() -> None:
    assert fingerprint([b"abc"]) == hashlib.sha256(b"abc").hexdigest()
    assert len({fingerprint([b"a", b"bc"]), fingerprint([b"ab", b"c"]), fingerprint([b"abc"])}) == 3


# --- hostile and damaged archives -------------------------------------------------------


@pytest.mark.parametrize("suffix", ALL_ARCHIVES)
@pytest.mark.parametrize("name", ["../out.npy", "/out.npy", "a/../../out.npy", "C:\\out.npy"])
def test_a_member_that_would_leave_its_folder_is_refused(
    tmp_path: Path, suffix: str, name: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(archive_bytes(suffix, {name: b"1", "good.npy": b"2"}))
    units = discover([str(path)])
    assert contents(units) == {"good": b"2"}
    assert [entry.reason for entry in units.refused] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "link.npy":
            info.type, info.linkname = kind, "/etc/passwd"

    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"link.npy": b"", "good.npy": b"2"}, "w:", change))
    units = discover([str(path)])
    assert contents(units) == {"good": b"2"}
    assert [entry.name for entry in units.refused] == ["link.npy"]


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.npy")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    units = discover([str(tmp_path / "a.zip")])
    assert (list(units), [entry.reason for entry in units.refused]) == ([], ["archive"])


@pytest.mark.parametrize("suffix", ALL_ARCHIVES)
def test_a_member_that_declares_too_much_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 1000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(archive_bytes(suffix, {"bomb.npy": bytes(1001), "good.npy": b"2"}))
    units = discover([str(path)])
    assert contents(units) == {"good": b"2"}
    assert "1001" in units.refused[0].message


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_a_tar_that_are_too_large_are_not_read(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type = kind if info.name == "bomb" else tarfile.REGTYPE

    path = tmp_path / "a.tar.xz"
    content = {"good.npy": b"2", "bomb": bytes(2**26), "other.npy": b"3"}
    path.write_bytes(tar_bytes(content, "w:xz", change))
    tracemalloc.start()
    units = discover([str(path)])
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert [(entry.name, entry.reason) for entry in units.refused] == [(path.name, "archive")]
    assert "1048576 bytes of headers" in units.refused[0].message


def test_memory_that_an_archive_does_not_get_is_its_damage() -> None:
    with pytest.raises(BadInput, match="MemoryError"), archives.damage_as_bad_input("a.tar"):
        raise MemoryError


@pytest.mark.parametrize("suffix", list(TAR_MODES))
def test_members_before_the_cut_of_a_truncated_tar_survive(tmp_path: Path, suffix: str) -> None:
    noise = random.Random(0)
    members = {f"{i:02}.npy": noise.randbytes(20_000) for i in range(100)}
    path = tmp_path / f"a{suffix}"
    whole = archive_bytes(suffix, members)
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    units = discover([str(path)])
    assert [(entry.name, entry.reason) for entry in units.refused] == [(path.name, "truncated")]
    results = dict(read_units(units))
    good = {u.name: p for u, p in results.items() if not isinstance(p, BadInput)}
    assert len(good) >= (1 if suffix == ".tar.bz2" else 50)  # bzip2 works in blocks of 900 kB
    assert all(payload == [members[f"{name}.npy"]] for name, payload in good.items())
    assert {p.reason for p in results.values() if isinstance(p, BadInput)} <= {"truncated"}


@pytest.mark.parametrize("suffix", ALL_ARCHIVES)
def test_no_flipped_byte_goes_unnoticed_where_the_format_has_a_checksum(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    whole = archive_bytes(suffix, CONTENT)
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        units = discover([str(path)])
        for unit, payload in read_units(units):
            if suffix != ".tar" and unit.name in STEMS:  # tar protects headers only
                assert isinstance(payload, BadInput) or payload == [STEMS[unit.name]]


def test_a_damaged_archive_does_not_hide_its_neighbours(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "a.zip": b"PK no zip",
            "b.tar.gz": b"\x1f\x8b\x09 no gzip",
            "c.tar": b"?" * 600,
            "d.npy": b"1",
        },
    )
    units = discover([str(tmp_path)])
    assert contents(units) == {"d": b"1"}
    assert {entry.name: entry.reason for entry in units.refused} == {
        "a.zip": "archive",
        "b.tar.gz": "archive",
        "c.tar": "archive",
    }


def test_a_gzip_with_a_wrong_checksum_is_refused_as_a_whole(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(tar_bytes(CONTENT, "w:")))
    data[-8] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(data)
    units = discover([str(tmp_path)])
    assert (list(units), units.refused[0].reason) == ([], "archive")


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_a_name_that_is_not_utf_8_is_refused_and_its_neighbours_are_read(
    tmp_path: Path, suffix: str
) -> None:
    name = os.fsdecode(b"bad\xff.npy")
    if suffix:
        (tmp_path / "a.tar").write_bytes(tar_bytes({name: b"1", "good.npy": b"2"}, "w:"))
    else:
        put(tmp_path, {name: b"1", "good.npy": b"2", os.fsdecode(b"other.\xff"): b"3"})
    units = discover([str(tmp_path / f"a{suffix}") if suffix else str(tmp_path)])
    assert contents(units) == {"good": b"2"}
    assert [(entry.name, entry.reason) for entry in units.refused] == [("bad\\udcff.npy", "name")]
    assert all(kind.isascii() for kind in units.ignored)


def test_a_file_that_vanished_is_bad_input_and_the_rest_is_read(tmp_path: Path) -> None:
    units = discover([str(put(tmp_path, CONTENT))])
    (tmp_path / "run/03.npy").unlink()
    results = dict(read_units(units))
    bad = {unit.name: p.reason for unit, p in results.items() if isinstance(p, BadInput)}
    assert bad == {"run/03": "missing"}
    assert len(results) == 20


def test_the_first_bytes_can_be_read_alone(tmp_path: Path) -> None:
    units = discover([str(put(tmp_path, CONTENT))])
    assert units[1].files[0].read(9) == b"content 1"
    with pytest.raises(BadInput, match="gone"):
        SourceFile(str(tmp_path / "none.npy"), None, "none.npy", 1).read()


# --- object stores ----------------------------------------------------------------------


class Guarded(BaseHTTPRequestHandler):
    """Gives one file to whoever knows the password."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Basic {b64encode(b'alice:hunter2').decode()}"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"field")

    def log_message(self, *arguments: object) -> None:
        pass


def test_passwords_come_from_netrc_and_never_in_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever).start()
        place = f"127.0.0.1:{server.server_address[1]}/a.npy"
        units = discover([f"http://{place}"])
        assert contents(units) == {"a": b"field"}
        server.shutdown()
    with pytest.raises(InvalidRequest, match="netrc") as caught:
        discover([f"http://alice:hunter2@{place}"])
    assert "hunter2" not in str(caught.value)


class Whole(SimpleHTTPRequestHandler):
    """Python's own server, which sends files whole whatever part is asked for."""

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a web server of a folder with one file and archives of many."""
    put(tmp_path / "www", CONTENT)
    for ending, mode in TAR_MODES.items():
        (tmp_path / "www" / f"all{ending}").write_bytes(tar_bytes(CONTENT, mode))
    (tmp_path / "www" / "all.zip").write_bytes(zip_bytes(CONTENT))
    handler = partial(Whole, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("query", ["", "?download=1"])
@pytest.mark.parametrize("ending", ALL_ARCHIVES)
def test_archives_are_read_from_a_server_that_sends_files_whole(
    web: str, ending: str, query: str
) -> None:
    found = discover([f"{web}/all{ending}{query}"])
    assert not found.refused
    assert contents(found) == {name.removesuffix(".npy"): data for name, data in CONTENT.items()}


def test_links_to_download_are_named_by_their_path(web: str) -> None:
    units = discover([f"{web}/run/03.npy?download=1"])
    assert contents(units) == {"03": CONTENT["run/03.npy"]}
    assert (units[0].files[0].name, units[0].files[0].read(7)) == ("03.npy", b"content")
    assert units[0].files[0].etag
    with pytest.raises(InvalidRequest, match="does not exist"):
        discover([f"{web}/none.npy?download=1"])


@pytest.fixture
def filled(bucket: str) -> str:
    store = fsspec.filesystem("s3", use_listings_cache=False)
    for name, data in CONTENT.items():
        store.pipe_file(f"{bucket}/data/{name}", data)
    for name, data in ZARR.items():
        store.pipe_file(f"{bucket}/data/{name}", data)
    store.pipe_file(f"{bucket}/data/empty/", b"")
    store.pipe_file(f"{bucket}/archives/a.tar.gz", tar_bytes(CONTENT, "w:gz"))
    store.pipe_file(f"{bucket}/archives/a.tar", tar_bytes(CONTENT, "w:"))
    store.pipe_file(f"{bucket}/archives/a.zip", zip_bytes(CONTENT))
    return bucket


def test_a_bucket_that_is_missing_is_named(bucket: str) -> None:
    with pytest.raises(InvalidRequest, match="does not exist") as raised:
        discover([f"{bucket}/none"])
    assert "no bucket" not in str(raised.value)
    with pytest.raises(InvalidRequest, match="no bucket 'nobody-made-it': make it, or check"):
        discover(["s3://nobody-made-it/data"])


def test_a_prefix_a_glob_and_an_object_on_s3_read_like_local_files(
    filled: str, tmp_path: Path
) -> None:
    units = discover([f"{filled}/data"])
    local = discover([str(put(tmp_path / "local", {**CONTENT, **ZARR}))])
    assert [unit.name for unit in units] == [*sorted(STEMS), "x"]
    assert contents(units) == contents(local)
    assert all(unit.files[0].etag and unit.files[0].mtime for unit in units)
    assert contents(discover([f"{filled}/data/run/0*.npy"])) == {
        name.removeprefix("run/"): data for name, data in STEMS.items() if name < "run/10"
    }
    assert contents(discover([f"{filled}/data/run/07.npy"])) == {"07": STEMS["run/07"]}
    assert discover([f"{filled}/data/x.zarr"])[0].name == "x"
    assert units[0].files[0].read(4) == b"cont"


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_archives_on_s3_read_like_local_ones(filled: str, name: str) -> None:
    assert contents(discover([f"{filled}/archives/{name}"])) == STEMS


def test_a_listing_on_s3_sees_what_came_since(filled: str) -> None:
    before = discover([f"{filled}/data"])
    fsspec.filesystem("s3").pipe_file(f"{filled}/data/new.npy", b"1")
    fsspec.filesystem("s3").pipe_file(f"{filled}/data/run/00.npy", b"changed")
    after = discover([f"{filled}/data"])
    assert {unit.name for unit in after} - {unit.name for unit in before} == {"new"}
    assert after[1].name == before[0].name
    assert after[1].files[0].etag != before[0].files[0].etag


@pytest.mark.parametrize("path", ["/nothing", "/nothing/*.npy", "-absent/x"])
def test_a_missing_source_on_s3_is_named(bucket: str, path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"nothing|absent"):
        discover([f"{bucket}{path}"])


@pytest.mark.parametrize(
    "code", ["AccessDenied", "ExpiredToken", "RequestTimeout", "SignatureDoesNotMatch", "SlowDown"]
)
def test_what_a_store_refuses_is_not_a_damaged_file(code: str) -> None:
    refused = ClientError({"Error": {"Code": code, "Message": "not now"}}, "GetObject")
    with (
        pytest.raises(OSError, match="not now") as raised,
        archives.damage_as_bad_input("s3://b/k"),
    ):
        raise translate_boto_error(refused)
    assert not isinstance(raised.value, BadInput)
