"""Images: what decoding makes of every form, how sizes are made equal, what is found."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from storage import BadInput, InvalidRequest
from storage.readers.images import Framing, decode, discover_images, read_images
from storage.readers.images.annotations import read_annotations, read_classes
from storage.readers.images.decoding import PIXELS, read_size
from storage.readers.images.framing import covering
from storage.readers.images.paths import class_and_split
from storage.sources import SourceFile, read_units


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    """A smooth colour image, which survives lossy compression."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [128 + 100 * np.sin(5 * x + 4 * y + phase) for phase in phases]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def array(data: bytes) -> np.ndarray:
    return np.asarray(decode(data)[0]).astype(int)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_format_is_known_by_its_content(form: str) -> None:
    image = picture()
    found, columns = decode(encoded(image, form))
    assert (found.mode, found.size, columns["format"]) == ("RGB", image.size, form.lower())
    difference = np.abs(np.asarray(found).astype(int) - np.asarray(image).astype(int))
    assert difference.mean() < (12 if form in ("JPEG", "WEBP", "GIF") else 1e-9)  # lossy or not


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture().convert("L")
    for mode in ("L", "1", "LA"):
        found = array(encoded(grey.convert(mode)))
        assert (found == found[..., :1]).all()
    np.testing.assert_array_equal(array(encoded(grey))[..., 0], np.asarray(grey))


def test_cmyk_jpeg_has_the_colours_that_it_was_made_of() -> None:
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert decode(data)[1]["mode"] == "CMYK"
    assert np.abs(array(data) - np.asarray(picture()).astype(int)).mean() < 4  # of JPEG


def test_sixteen_bits_become_the_nearest_of_eight() -> None:
    values = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        found = array(encoded(Image.fromarray(values), form))
        np.testing.assert_array_equal(found[..., 0], np.rint(values / 257))
    with pytest.raises(BadInput, match="floating-point"):
        decode(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_what_is_transparent_lies_on_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0], [255]], 12, 0).astype(np.uint8).repeat(32, 1)))
    found = array(encoded(image))
    assert (found[:12] == 255).all()
    np.testing.assert_array_equal(found[12:], np.asarray(picture())[12:])
    palette = picture().convert("P")
    found = array(encoded(palette, transparency=palette.getpixel((0, 0))))
    assert (found[0, 0] == 255).all()

    deep = Image.fromarray(np.array([[0, 256], [512, 65535]], np.uint16))
    assert array(encoded(deep, transparency=256))[..., 0].tolist() == [[0, 255], [2, 255]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), form, exif=exif)
    turns = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "th", 7: "thv", 8: "tv"}[orientation]
    expected = np.asarray(picture())
    for turn in turns:
        expected = {"h": expected[:, ::-1], "v": expected[::-1]}.get(
            turn, expected.transpose(1, 0, 2)
        )
    np.testing.assert_array_equal(array(data), expected)
    assert read_size(data) == expected.shape[:2]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_an_image_that_lacks_bytes_is_refused(form: str, part: float) -> None:
    data = encoded(picture(64, 64), form)
    with pytest.raises(BadInput) as refused:
        decode(data[: int(part * len(data))])
    assert refused.value.reason in ("truncated", "corrupt")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "truncated"), (b"<html>not found</html>", "format"), (b"\x80\x04]q\x00.", "format")],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        decode(data)
    assert refused.value.reason == reason


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_damaged_bytes_are_decoded_or_refused_and_raise_nothing_else(form: str) -> None:
    """A changed pixel cannot be known; a broken header or checksum is. PNG has a checksum."""
    generator = np.random.default_rng(1)
    whole = np.frombuffer(encoded(picture(), form), np.uint8)
    decoded, refused = 0, []
    for _ in range(30):
        data = whole.copy()
        place = generator.integers(len(data))
        data[place : place + 8] = generator.integers(0, 256, len(data[place : place + 8]))
        try:
            image, _ = decode(data.tobytes())
            decoded += image.mode == "RGB"
        except BadInput as error:
            refused.append(error.reason)
    assert decoded + len(refused) == 30
    assert {*refused} <= {"truncated", "corrupt", "format", "bomb"}
    assert refused
    assert decoded or form == "PNG"


def test_a_bomb_is_refused_by_its_header() -> None:
    side = int(PIXELS**0.5) + 1
    data = encoded(Image.new("1", (side, side)))
    assert len(data) < 2**20
    with pytest.raises(BadInput, match="bomb"):
        decode(data)


# sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "frame", "cover"),
    [
        ((50, 37), (16, 16), None),
        ((37, 50), (16, 16), (19, 19)),
        ((40, 60), (16, 24), None),
        ((61, 40), (16, 24), None),
        ((9, 12), (16, 16), None),
        ((16, 16), (16, 16), None),
        ((20, 20), (16, 16), (20, 20)),
    ],
)
def test_framing_is_resizing_to_cover_and_then_cutting_the_centre(
    size: tuple[int, int], frame: tuple[int, int], cover: tuple[int, int] | None
) -> None:
    image = picture(*size)
    h, w = covering(size, cover or frame)
    whole = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR)).astype(int)
    top, left = round((h - frame[0]) / 2), round((w - frame[1]) / 2)
    expected = whole[top : top + frame[0], left : left + frame[1]]
    found = Framing(frame, cover=cover)(image)
    assert found.shape == (*frame, 3)
    assert np.abs(found - expected).max() <= 1  # a weight may be rounded the other way


@pytest.mark.parametrize(("size", "frame"), [((375, 500), (224, 224)), ((500, 375), (224, 224))])
def test_the_longer_side_is_rounded_down_as_torchvision_does(
    size: tuple[int, int], frame: tuple[int, int]
) -> None:
    assert sorted(covering(size, frame)) == [224, int(224 * 500 / 375)]


def test_reducing_is_antialiased() -> None:
    """A chequerboard of single pixels becomes its mean, not one of its colours."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = Framing((8, 8))(Image.fromarray(board).convert("RGB"))
    assert np.abs(found[1:-1, 1:-1].astype(int) - 127).max() <= 2  # 127.5, to a rounding


def test_stretching_keeps_all_and_exact_refuses() -> None:
    image = picture(20, 40)
    stretched = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Framing((16, 16), "stretch")(image), stretched)
    np.testing.assert_array_equal(Framing((20, 40), "exact")(image), np.asarray(image))
    with pytest.raises(BadInput, match="20x40"):
        Framing((16, 16), "exact")(image)


def test_a_strip_costs_no_more_than_a_photograph() -> None:
    """Resized as a whole it would have 2 million by 64 pixels: 400 MB."""
    found = Framing((64, 64))(Image.new("RGB", (2**15, 1), (9, 8, 7)))
    assert (found == (9, 8, 7)).all()


# what is found ------------------------------------------------------------------------------


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_of_tars_is_read_in_place(tmp_path: Path) -> None:
    images = {f"n0000000{i}_{k}.JPEG": encoded(picture(seed=i + k)) for i in (1, 2) for k in (0, 1)}
    inner = {}
    for wnid in ("n00000001", "n00000002"):
        few = {name: data for name, data in images.items() if name.startswith(wnid)}
        inner[f"{wnid}.tar"] = tar(tmp_path / "inner.tar", few).read_bytes()
    inner["n00000003.tar"] = inner["n00000001.tar"][:700]
    place = tar(tmp_path / "ILSVRC2012_img_train.tar", inner)
    found = discover_images([str(place)])
    assert [unit.name for unit in found] == [
        f"{name[:9]}.tar/{name.removesuffix('.JPEG')}" for name in images
    ]
    for unit, payload in read_units(reversed(found)):
        assert payload == [images[unit.files[0].name.rpartition("/")[2]]]
        assert class_and_split(unit.files[0]) == (unit.name[:9], "train")
    assert [(bad.name, bad.reason) for bad in found.refused] == [("n00000003.tar", "truncated")]


def test_a_tar_within_a_compressed_tar_says_that_it_is_not_read(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar", {"n00000001_0.JPEG": encoded(picture())}).read_bytes()
    found = discover_images([str(tar(tmp_path / "a.tar.gz", {"n00000001.tar": inner}, "w:gz"))])
    assert [(bad.name, bad.reason) for bad in found.refused] == [("n00000001.tar", "archive")]
    assert "decompress it" in found.refused[0].message
    assert not found


def test_files_that_cannot_hold_an_image_say_why(tmp_path: Path) -> None:
    """A link to nothing, one to itself, and a table of paths; a JFIF is a JPEG like any other."""
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "a.jfif").write_bytes(encoded(picture(), "JPEG"))
    shape = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": None, "path": "a.jpg"}, {"bytes": b"x", "path": None}], shape)
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    read = {unit.name: found for unit, found in read_units(discover_images([str(tmp_path)]))}
    reasons = {name: getattr(found, "reason", "") for name, found in read.items()}
    assert reasons == {
        "a": "", "dead": "missing", "t.parquet/00000000": "reference", "t.parquet/00000001": "",
    }  # fmt: skip


@pytest.mark.parametrize(("bits", "grey"), [("int32", None), ("uint16", 255)])
def test_integers_have_a_range_only_of_the_bits_that_are_declared(
    bits: str, grey: int | None
) -> None:
    """A TIFF of 0 .. 255 in 32 bits would be nearly black."""
    data = encoded(Image.fromarray(np.full((4, 4), 255 if grey is None else 65535, bits)), "TIFF")
    if grey is not None:
        assert (array(data) == grey).all()
        return
    with pytest.raises(BadInput, match="integers of 32 bits"):
        decode(data)


def tiff(bits: int, data: bytes, white: int, sign: int = 1) -> bytes:
    """A grey TIFF of 4 x 4 points, by its tags: Pillow writes no such ones."""
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: 4, 339: sign}
    tags[279] = len(data)
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, tags[tag]) for tag in sorted(tags))
    place = struct.pack("<I", 8 + len(data))
    return b"II*\0" + place + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_greys_of_a_tiff_are_those_that_its_tags_say() -> None:
    for white, ends in ((1, (0, 255)), (0, (255, 0))):
        for bits in (8, 16):
            found = [array(tiff(bits, value * (2 * bits), white)) for value in (b"\0", b"\xff")]
            assert tuple(int(grey.mean()) for grey in found) == ends
    for data in (tiff(12, b"\xff" * 24, 1), tiff(8, b"\xff" * 16, 1, sign=2)):
        with pytest.raises(BadInput, match="range is unknown"):
            decode(data)


def test_members_that_would_escape_are_refused(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner.tar", {"../../etc/x.png": b"x", "fine.png": b"y"}).read_bytes()
    found = discover_images([str(tar(tmp_path / "a.tar", {"../b.png": b"x", "in.tar": inner}))])
    assert [unit.name for unit in found] == ["in.tar/fine"]
    assert {bad.reason for bad in found.refused} == {"archive"}
    assert len(found.refused) == 2


def test_files_of_one_name_are_one_unit_and_others_are_ignored(tmp_path: Path) -> None:
    files = {"00/7.jpg": b"a", "00/7.cls": b"3", "00/7.json": b"{}", "00/8.jpg": b"b", "8.txt": b""}
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "train-0.tar", files)
    tar(tmp_path / "shards" / "train-1.tar", files)
    found = discover_images([str(tmp_path / "shards")])
    assert [(unit.name, len(unit.files)) for unit in found] == [
        ("train-0.tar/00/7", 3),
        ("train-0.tar/00/8", 1),
        ("train-1.tar/00/7", 3),
        ("train-1.tar/00/8", 1),
    ]
    assert found.ignored == {".txt": 2}
    assert class_and_split(found[0].files[0])[1] == "train"


def test_pickles_are_refused_and_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    found = discover_images([str(tmp_path)])
    assert (list(found), [bad.reason for bad in found.refused]) == ([], ["pickle"])


def test_tables_are_found_beside_images_and_in_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        archive.writestr("t/val/images/val_0.JPEG", b"x")
        archive.writestr("t/val/val_annotations.txt", "val_0.JPEG\tn0\t0\t1\t2\t3\n")
        archive.writestr("t/readme.txt", "")
    found = discover_images([str(tmp_path / "tiny.zip")])
    assert [table.name for table in found.tables] == ["t/val/val_annotations.txt"]
    table = read_annotations("val_annotations.txt", found.tables[0].read())
    assert table.loc["val_0.JPEG"].to_dict() == {
        "label": "n0", "box_left": 0, "box_top": 1, "box_right": 2, "box_bottom": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "member", "name", "expected"),
    [
        ("/d/cats/1.jpg", None, "cats/1.jpg", ("cats", None)),
        ("/d/train/cats/1.jpg", None, "train/cats/1.jpg", ("cats", "train")),
        ("/d/train/cats/1.jpg", None, "cats/1.jpg", ("cats", "train")),
        ("/d/val/train/1.jpg", None, "val/train/1.jpg", ("train", "validation")),
        ("/d/train/n01/images/n0_0.JPEG", None, "train/n01/images/n0_0.JPEG", ("n01", "train")),
        ("/d/n01443537_0.JPEG", None, "n01443537_0.JPEG", ("n01443537", None)),
        ("/d/t.zip", "t/test/images/test_4.JPEG", "t/test/images/test_4.JPEG", (None, "test")),
        ("/d/val.tar", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000001.JPEG",
         (None, "validation")),
        ("/d/1.jpg", None, "1.jpg", (None, None)),
    ],
)  # fmt: skip
def test_paths_name_class_and_split(
    place: str, member: str | None, name: str, expected: tuple[str | None, str | None]
) -> None:
    assert class_and_split(SourceFile(place, member, name, 1)) == expected


def test_lists_of_classes_keep_their_order() -> None:
    words = b"n02 tench, Tinca tinca\nn01 goldfish\n".replace(b"n0", b"n0000000")
    assert read_classes("a.txt", words) == {
        "n00000002": "tench, Tinca tinca",
        "n00000001": "goldfish",
    }
    assert list(read_classes("a.txt", b"hot dog\ncat\n")) == ["hot dog", "cat"]


def parquet(path: Path, images: list[bytes], names: list[str] | None = None) -> Path:
    """Rows as Hugging Face writes them: a struct of bytes and path, a number, names apart."""
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table(
        {
            "image": [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)],
            "label": [i % 2 for i in range(len(images))],
        }
    ).replace_schema_metadata({"huggingface": json.dumps(about)} if names else None)
    pq.write_table(table, path, row_group_size=3)
    return path


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
def test_rows_of_parquet_are_images_with_their_labels(
    names: list[str] | None, tmp_path: Path
) -> None:
    images = [encoded(picture(seed=i)) for i in range(8)]
    place = parquet(tmp_path / "train-00000-of-00001.parquet", images, names)
    found = discover_images([str(place)])
    assert [unit.name for unit in found] == [f"{i:08d}" for i in range(8)]
    chosen = [found[i] for i in (7, 1, 4)]  # across groups, in any order
    for unit, payload in read_units(chosen):
        row = int(unit.name)
        (image,) = read_images(unit, payload, Framing((24, 32)))
        assert image.encoded == images[row]
        expected = names[row % 2] if names else str(row % 2)
        said = {name: image.columns[name] for name in ("label", "class_index", "split")}
        assert said == {"label": expected, "class_index": row % 2, "split": "train"}


def test_rows_without_a_label_have_none_whatever_their_folder(tmp_path: Path) -> None:
    """-1, as Hugging Face's test sets have it, a number beyond the names, and null."""
    folder = tmp_path / "data"
    folder.mkdir()
    data = encoded(picture())
    about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [{"bytes": data}] * 4, "label": [1, -1, 2, None]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, folder / "test-00000.parquet")
    found = []
    for unit, payload in read_units(discover_images([str(tmp_path)])):
        (image,) = read_images(unit, payload, Framing((24, 32)))
        found.append((image.columns["label"], image.columns.get("class_index")))
    assert found == [("dog", 1), (None, None), (None, None), (None, None)]
    pq.write_table(table.drop_columns("label"), folder / "test-00000.parquet")
    assert class_and_split(discover_images([str(tmp_path)])[0].files[0]) == (None, "test")


def test_a_table_without_images_and_a_cut_one_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "numbers.parquet")
    whole = parquet(tmp_path / "images.parquet", [encoded(picture())]).read_bytes()
    (tmp_path / "images.parquet").write_bytes(whole[:-20])
    found = discover_images([str(tmp_path)])
    assert {bad.name: bad.reason for bad in found.refused} == {
        "numbers.parquet": "columns",
        "images.parquet": "archive",
    }


def test_a_parquet_that_declares_more_rows_than_bytes_is_not_listed(tmp_path: Path) -> None:
    rows = pa.array([None] * 10**5, pa.binary())
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    found = discover_images([str(tmp_path)])
    assert (list(found), [bad.reason for bad in found.refused]) == ([], ["corrupt"])


def database(folder: Path, values: dict[str, bytes]) -> Path:
    """A database as LSUN's: keys of hexadecimal digits, values encoded images."""
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as t:
        for key, value in values.items():
            t.put(key.encode(), value)
    return folder


def test_values_of_an_lmdb_are_images_of_the_class_that_its_folder_names(tmp_path: Path) -> None:
    images = {f"{i:040x}": encoded(picture(seed=i), "WEBP") for i in (3, 1, 2)}
    folder = database(tmp_path / "bedroom_val_lmdb", images)
    for source in (folder, tmp_path):
        found = discover_images([str(source)])
        assert [unit.name.rpartition("/")[2] for unit in found] == sorted(images)
        for unit, payload in read_units(found):
            assert payload == [images[unit.name.rpartition("/")[2]]]
            assert class_and_split(unit.files[0]) == ("bedroom", "validation")


def test_a_database_that_lacks_pages_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = database(tmp_path / "a_train_lmdb", {"00": bytes(2**16), "01": bytes(2**16)})
    whole = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(whole[: len(whole) // 2])
    found = discover_images([str(folder)])
    assert [bad.reason for bad in found.refused] == ["truncated"]
    (folder / "data.mdb").write_bytes(b"nothing of the kind" * 1000)
    assert [bad.reason for bad in discover_images([str(folder)]).refused] == ["archive"]


def test_tables_of_celeba_are_booleans_splits_and_boxes() -> None:
    attributes = read_annotations("list_attr_celeba.txt", b"2\nBald Young\n1.jpg -1 1\n2.jpg 1 1\n")
    assert attributes.to_dict("index") == {
        "1.jpg": {"Bald": False, "Young": True},
        "2.jpg": {"Bald": True, "Young": True},
    }
    boxes = b"1\nimage_id x_1 y_1 width height\n1.jpg 9 8 7 6\n"
    assert list(read_annotations("list_bbox_celeba.txt", boxes)) == [
        "x_1", "y_1", "box_width", "box_height",
    ]  # fmt: skip
    splits = read_annotations("list_eval_partition.txt", b"1.jpg 0\n2.jpg 2\n")
    assert list(splits["split"]) == ["train", "test"]
    marked = read_annotations("labels.csv", b"\xef\xbb\xbffilename,label\na/1.jpg,x\nb/1.jpg,y\n")
    assert marked["label"].to_dict() == {"a/1.jpg": "x", "b/1.jpg": "y"}
    with pytest.raises(InvalidRequest, match="declared"):
        read_annotations("list_attr_celeba.txt", b"3\nBald\n1.jpg -1\n2.jpg 1\n")
    with pytest.raises(InvalidRequest, match="two rows"):
        read_annotations("list_eval_partition.txt", b"1.jpg 0\n1.jpg 2\n")


def test_the_devkits_classes_are_its_leaves_in_its_order(tmp_path: Path) -> None:
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(2, "n00000001", "tench", 0), (1, "n00000007", "dog", 0), (3, "n00000003", "all", 2)]
    savemat(tmp_path / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    found = read_classes("meta.mat", (tmp_path / "meta.mat").read_bytes())
    assert list(found.items()) == [("n00000007", "dog"), ("n00000001", "tench")]
