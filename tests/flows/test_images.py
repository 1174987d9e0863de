"""Images from end to end: raw files of every form to samples, labels and features."""

from __future__ import annotations

import io
import os
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flows import features, ingest
from storage import InvalidRequest, open_store
from storage.keys import digest
from storage.readers.images import Framing
from storage.verify import verify
from tasks.images import ImageOptions
from tasks.labels import rows_of, with_index
from tasks.live_features import live
from tasks.progress import hearing
from wavemill import Augmentation, Scattering2D, as_float

CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "images.toml").read_text())["case"]


def run(url: str, *sources: Path | str, **options: Any) -> Any:
    """Ingest into ``set`` in this process."""
    return ingest("set", list(map(str, sources)), url, ImageOptions(**options), "threads")


def picture(seed: int, size: tuple[int, int] = (20, 24)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(noise)


def png(seed: int, size: tuple[int, int] = (20, 24)) -> bytes:
    buffer = io.BytesIO()
    picture(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve images of three classes, two of which are in the training set."""
    for i in range(12):
        split = "train" if i % 4 < 3 else "val"
        file = tmp_path / "tree" / split / "cba"[i % 3] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(i))
    return tmp_path / "tree"


def told(value: Any) -> Any:
    return "none" if value is None or value != value else value


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["name"]) for c in CASES if not c.get("slow")]
)
def test_reference_folders_become_what_the_table_says(
    case: dict[str, Any], shared: Path, store_url: str
) -> None:
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
    if "classes" in options:
        options["classes"] = str(shared / "data" / options["classes"])
    made = run(store_url, *(shared / "data" / source for source in case["source"]), **options)
    dataset = open_store(store_url).dataset("set")
    samples = dataset.samples()
    assert (made.samples, made.quarantined) == (case["count"], case["quarantined"])
    assert dataset.schema.row_shape == (*case["shape"], 3)
    assert samples["sample_id"].iloc[0] == case["first"]
    assert samples["label"].nunique() == case["classes"]
    for place, expected in ((0, case["columns"]), (-1, case.get("last", {}))):
        assert {name: told(samples.iloc[place][name]) for name in expected} == expected


def test_arrays_are_the_framed_images_and_the_encoded_bytes_are_kept(
    tree: Path, store_url: str
) -> None:
    run(store_url, tree, size=(16, 16), keep_encoded=True, part_size=5000)  # several parts
    dataset = open_store(store_url).dataset("set")
    assert len(dataset.version.parts) > 1
    array, rows = dataset.to_xarray(), dataset.samples()
    assert (array.dims, array.dtype) == (("sample", "y", "x", "rgb"), np.uint8)
    assert list(array["rgb"].values) == ["red", "green", "blue"]
    for image, data, source in zip(array.values, dataset.encoded(), rows["source"], strict=True):
        assert data == Path(source).read_bytes()
        np.testing.assert_array_equal(image, Framing((16, 16))(Image.open(io.BytesIO(data))))
    assert list(verify(open_store(store_url))) == []


def test_bytes_that_were_not_kept_cannot_be_asked_for(tree: Path, store_url: str) -> None:
    run(store_url, tree)
    with pytest.raises(InvalidRequest, match="--keep-encoded"):
        next(open_store(store_url).dataset("set").encoded())


def test_labels_and_splits_answer_questions(tree: Path, store_url: str) -> None:
    run(store_url, tree)
    dataset = open_store(store_url).dataset("set")
    assert dataset.schema.shape == (20, 24)  # their own size, since they agree
    assert len(dataset.samples("split = 'train' and label = 'a'")) == 3
    pairs = dataset.samples()[["label", "label_index"]].drop_duplicates().sort_values("label")
    assert pairs.to_numpy().tolist() == [["a", 0], ["b", 1], ["c", 2]]


def test_a_second_run_reads_nothing_and_a_new_class_moves_the_indices_but_no_array(
    tree: Path, store_url: str
) -> None:
    run(store_url, tree)
    for file in tree.rglob("*.png"):  # unreadable now: a second reading would end in quarantine
        stat = file.stat()
        file.write_bytes(b"?" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = run(store_url, tree)
    assert (again.version, again.parts_written, again.unchanged) == (1, 0, 12)
    (tree / "train" / "aa").mkdir()
    (tree / "train" / "aa" / "new.png").write_bytes(png(99))
    more = run(store_url, tree)
    assert (more.parts_written, more.added, more.samples) == (1, 1, 13)
    samples = open_store(store_url).dataset("set").samples()
    assert dict(zip(samples["label"], samples["label_index"], strict=True)) == {
        "a": 0, "aa": 1, "b": 2, "c": 3,
    }  # fmt: skip


def test_mixed_samples_are_the_same_in_an_order_of_their_names_hashes(
    tree: Path, store_url: str
) -> None:
    run(store_url, tree, part_size=5000)
    options = ImageOptions(mix=True, part_size=5000)
    ingest("mixed", [str(tree)], store_url, options, "threads")
    plain, mixed = (open_store(store_url).dataset(name) for name in ("set", "mixed"))
    ids = list(mixed.samples()["sample_id"])
    assert ids == sorted(ids, key=lambda name: digest(name.encode())) != sorted(ids)
    order = [ids.index(name) for name in plain.samples()["sample_id"]]
    np.testing.assert_array_equal(mixed.to_xarray().values[order], plain.to_xarray().values)


def test_later_images_are_framed_as_the_first_ones(tree: Path, store_url: str) -> None:
    run(store_url, tree / "train", size=(12, 12), cover=(16, 16))
    run(store_url, tree / "val")
    array = open_store(store_url).dataset("set").to_xarray()
    expected = Framing((12, 12), cover=(16, 16))
    for image, source in zip(array.values, array["source"].values, strict=True):
        np.testing.assert_array_equal(image, expected(Image.open(source)))
    with pytest.raises(InvalidRequest, match="the flags ask for"):
        run(store_url, tree / "val", fit="stretch")
    with pytest.raises(InvalidRequest, match="the flags ask for"):
        run(store_url, tree / "val", cover=(14, 14))


def test_bad_images_are_quarantined_with_their_reasons(tree: Path, store_url: str) -> None:
    whole = png(1)
    bad = {
        "cut.png": whole[:-200],
        "empty.jpg": b"",
        "page.jpeg": b"<html></html>",
        "bomb.png": _huge(),
    }
    for name, data in bad.items():
        (tree / name).write_bytes(data)
    (tree / "named.jpg").write_bytes(whole)  # a PNG all the same
    made = run(store_url, tree)
    assert made.samples == 13
    assert made.quarantined == {"truncated": 2, "format": 1, "bomb": 1}
    with pytest.raises(InvalidRequest, match="--strict"):
        run(store_url, tree, strict=True)


def test_pages_that_are_not_read_are_told(tmp_path: Path, store_url: str) -> None:
    """All but the first page of a stack; an animation's first frame is all that is meant."""
    pages = [Image.fromarray(np.full((8, 8), 9000 * i, np.uint16)) for i in range(1, 6)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    frames = [picture(i, (8, 8)) for i in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    picture(0, (8, 8)).save(tmp_path / "single.tif")
    heard: list[str] = []
    with hearing(heard.append):
        assert run(store_url, tmp_path).samples == 3
    (said,) = heard
    assert "first page of 1 TIFF files was read, 4 pages were not" in said
    assert "stack.tif: make a file of each page" in said
    table = open_store(store_url).dataset("set").samples("pages > 1")
    assert table[["sample_id", "pages"]].values.tolist() == [["stack", 5]]


def _huge() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_validation_labels_of_either_order_give_the_same_classes(
    tmp_path: Path, store_url: str
) -> None:
    source, lists = tmp_path / "ILSVRC2012_img_val.tar", tmp_path / "lists"
    with tarfile.open(source, "w") as archive:
        for number in (1, 2, 3):
            info = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            info.size = len(png(number))
            archive.addfile(info, io.BytesIO(png(number)))
    lists.mkdir()
    ascending, devkit = ["n00000001", "n00000002", "n00000003"], [2, 3, 1]
    rows = [f"val.zip@/ILSVRC2012_val_{n:08d}.JPEG {n - 1}" for n in (1, 2, 3)]
    (lists / "ascending.txt").write_text("\n".join(rows))
    (lists / "devkit.txt").write_text("1\n2\n3\n")
    (lists / "synsets.txt").write_text("\n".join(f"{wnid} thing" for wnid in ascending))
    (lists / "meta.txt").write_text("\n".join(ascending[i - 1] for i in devkit))
    with pytest.raises(InvalidRequest, match="two orders"):
        run(store_url, source, annotations=(str(lists / "devkit.txt"),))
    with pytest.raises(InvalidRequest, match="in the other order"):
        run(store_url, source, annotations=(str(lists / "devkit.txt"),), label_order="sorted",
            classes=str(lists / "synsets.txt"))  # fmt: skip
    for order, table, classes, labels in (
        ("sorted", "ascending.txt", "synsets.txt", ascending),
        ("devkit", "devkit.txt", "meta.txt", [ascending[i - 1] for i in devkit]),
    ):
        options = ImageOptions(
            annotations=(str(lists / table),), classes=str(lists / classes), label_order=order
        )
        ingest(order, [str(source)], store_url, options, "threads")
        samples = open_store(store_url).dataset(order).samples()
        assert list(samples["label"]) == labels
        assert list(samples["label_index"]) == [ascending.index(label) for label in labels]
        assert set(samples["split"]) == {"validation"}


def test_samples_without_a_label_leave_the_others_whole_numbers(
    tree: Path, store_url: str, tmp_path: Path
) -> None:
    (tree / "test").mkdir()
    (tree / "test" / "x.png").write_bytes(png(50))
    run(store_url, tree)
    dataset = open_store(store_url).dataset("set")
    assert dataset.samples()["label_index"].dtype == "Int64"
    chosen = dataset.to_torch("label_index IS NOT NULL", "label_index")
    assert chosen[0][1].dtype == torch.int64
    assert len(dataset.samples("label_index = 0")) == 4
    with pytest.raises(InvalidRequest, match="1 of 13 samples have no label_index"):
        dataset.to_torch(target="label_index")
    dataset.to_xarray().to_dataset(name="images").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")


def labelled(labels: dict[str, int | None]) -> pd.DataFrame:
    numbers = [None if number is None else float(number) for number in labels.values()]
    return pd.DataFrame({"label": list(labels), "class_index": numbers})


def test_no_two_labels_share_an_index() -> None:
    given = with_index(labelled({"b": 4, "a": None, "c": 0}), None, None)
    assert list(given["label_index"]) == [4, 5, 0]
    clash = with_index(labelled({"b": 1, "a": 1, "c": 0}), None, None)
    assert list(clash["label_index"]) == [1, 0, 2]


def test_a_list_of_classes_names_numbers_and_must_have_some_label() -> None:
    names = {"apple": "", "bear": "a bear", "cloud": ""}
    made = with_index(labelled({"2": 2, "1": 1}), names, None)
    assert made[["label_index", "class_name"]].to_numpy().tolist() == [[2, "cloud"], [1, "a bear"]]
    some = with_index(labelled({"bear": None, "dog": None}), names, None)
    assert some["label_index"].fillna(-1).tolist() == [1, -1]
    with pytest.raises(InvalidRequest, match="'dog', the list of 3 begins with 'apple'"):
        with_index(labelled({"dog": None}), names, None)


def test_rows_of_tables_are_joined_by_the_ends_of_paths() -> None:
    """A row goes where most of its path is found: not to a namesake in another folder."""
    places = [
        "/r/dog/1.jpg",
        "/r/cat/1.jpg",
        "/r/z.zip!cat/2.jpg + /r/z.zip!cat/2.json",
        "/r/3.jpg",
    ]
    samples = pd.DataFrame({"source": places})
    for rows, expected in (
        (["dog/1.jpg", "cat/1.jpg"], [0, 1, -1, -1]),
        (["old/dog/1.jpg", "cat/2.jpg"], [0, -1, 1, -1]),
        (["1.jpg", "2.jpg"], [0, 0, 1, -1]),
        (["cat/2", "3"], [-1, -1, 0, 1]),
        (["x/1.jpg", "y/1.jpg"], [-1, -1, -1, -1]),
    ):
        assert rows_of(samples, pd.DataFrame({"label": rows}, index=rows)).tolist() == expected


def test_tables_that_are_not_there_or_say_nothing_are_refused(tree: Path, store_url: str) -> None:
    table, names = tree / "labels.csv", tree / "names.txt"
    with pytest.raises(InvalidRequest, match=r"labels\.csv does not exist"):
        ImageOptions(annotations=(str(table),)).find([str(tree)])
    with pytest.raises(InvalidRequest, match=r"names\.txt does not exist"):
        ImageOptions(classes=str(names)).find([str(tree)])
    table.write_text("filename,label\n77,x\n")
    with pytest.raises(InvalidRequest, match=r"none of its 1 rows, such as '77'"):
        run(store_url, tree, annotations=(str(table),))
    names.write_text("b\nc\n")
    told: list[str] = []
    with hearing(told.append):
        run(store_url, tree, classes=str(names))
    assert "labels of 4 images are not in it" in told[0]


def test_what_lies_beside_images_becomes_columns(tree: Path, store_url: str) -> None:
    for name, said in (("00", '{"id": 1, "label": "x", "list": [1]}'), ("01", '{"id": "b"}')):
        next(tree.rglob(f"{name}.png")).with_suffix(".json").write_text(said)
    next(tree.rglob("02.png")).with_suffix(".json").write_text("[")
    (tree / "table.csv").write_text("name,age,class\n03,7,z\n")  # names without extensions
    made = run(store_url, tree, annotations=(str(tree / "table.csv"),))
    assert made.quarantined == {"sidecar": 1}
    samples = open_store(store_url).dataset("set").samples().set_index("sample_id")
    assert list(samples.loc["train/c/00", ["id", "label"]]) == ["1", "x"]
    assert list(samples.loc["train/b/01", ["id", "label"]]) == ["b", "b"]
    assert list(samples.loc["val/c/03", ["age", "label"]]) == [7, "z"]


@pytest.mark.parametrize(
    ("kind", "said", "refused"),
    [
        ("json", '{"label": "\\ud800"}', True),
        ("json", '{"\\ud800": 1}', True),
        ("json", '{"n": 99999999999999999999}', True),
        ("json", "[" * 100_000, True),
        ("cls", "\u00b2", False),
        ("cls", "9" * 5000, False),
        ("cls", r"$\frac{$", False),
    ],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode(),
)
def test_nothing_beside_an_image_stops_the_others(
    tree: Path, store_url: str, kind: str, said: str, refused: bool
) -> None:
    next(tree.rglob("02.png")).with_suffix(f".{kind}").write_text(said)
    made = run(store_url, tree)
    assert made.quarantined == ({"sidecar": 1} if refused else {})
    samples = open_store(store_url).dataset("set").samples()
    assert refused or said in set(samples["label"])


def test_cifar_batches_are_the_images_that_they_hold(tmp_path: Path, store_url: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, labels in (("data_batch_1", [3, 9]), ("test_batch", [0])):
        records = [bytes([k]) + picture(k, (32, 32)).tobytes() for k in labels]
        planes = [
            r[:1] + np.frombuffer(r[1:], np.uint8).reshape(32, 32, 3).transpose(2, 0, 1).tobytes()
            for r in records
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(planes))
    run(store_url, folder)
    dataset = open_store(store_url).dataset("set")
    columns = ["sample_id", "label", "label_index", "split"]
    assert dataset.samples()[columns].to_numpy().tolist() == [
        ["data_batch_1#00000", "cat", 3, "train"],
        ["data_batch_1#00001", "truck", 9, "train"],
        ["test_batch#00000", "airplane", 0, "test"],
    ]
    expected = [np.asarray(picture(k, (32, 32))) for k in (3, 9, 0)]
    np.testing.assert_array_equal(dataset.to_xarray().values, expected)


def test_digits_come_with_a_dependency(store_url: str) -> None:
    made = run(store_url, "sklearn:digits")
    dataset = open_store(store_url).dataset("set")
    from sklearn.datasets import load_digits

    assert (made.samples, dataset.schema.row_shape) == (1797, (8, 8, 3))
    first = dataset.samples().iloc[0]
    greys = load_digits().images[int(first["sample_id"].rpartition("/")[2])]
    found = dataset.to_xarray()[0].values
    np.testing.assert_array_equal(found, np.rint(greys * 255 / 16 + 1e-9)[..., None].repeat(3, -1))
    assert (first["label"], first["label_index"]) == ("0", 0)


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_features_are_the_scattering_of_each_colour(
    stored: str, tree: Path, store_url: str
) -> None:
    run(store_url, tree, size=(16, 16), part_size=5000)
    chosen = {"J": 2, "L": 2, "nonlinearity": "rectifier", "stored": stored}
    features("set", "scattering", store_url, None, chosen, "threads")
    frame = open_store(store_url).get_historical_features("set", "scattering")
    assert list(frame.coefficients)[:2] == ["name", "component"]
    assert list(frame.coefficients["component"].unique()) == ["red", "green", "blue"]
    op = Scattering2D((16, 16), 2, 2, nonlinearity="rectifier")
    images = open_store(store_url).dataset("set").to_xarray().values
    with torch.inference_mode():
        expected = op(as_float(torch.from_numpy(images))).flatten(1, 2)
    found = torch.from_numpy(frame.to_xarray().values)
    assert found.dtype == getattr(torch, stored)
    # float32: another batch, another order of sums; float16: half a unit in the last place
    assert torch.allclose(found.float(), expected, rtol=1e-3 if stored == "float16" else 1e-5,
                          atol=1e-6)  # fmt: skip


@pytest.fixture
def trained_from(tree: Path, store_url: str) -> Any:
    """A store with twelve images in four parts and their features in half precision."""
    run(store_url, tree, size=(16, 16), part_size=3000)
    features("set", "scattering", store_url, None, {"J": 1, "L": 2, "stored": "float16"}, "threads")
    return open_store(store_url)


LIVE = "scattering:J=1,L=2,stored=float16"


def test_features_while_training_are_the_numbers_that_are_stored(trained_from: Any) -> None:
    where = "split = 'train'"
    frame = trained_from.get_historical_features("set", "scattering", where)
    stored = frame.to_torch(target="label_index")
    now = live(trained_from, "set", LIVE, where).to_torch(target="label_index")
    assert now.frame.version.spec == frame.version.spec
    for one, other in zip(stored.__getitems__([3, 0, 5]), now.__getitems__([3, 0, 5]), strict=True):
        assert one[1] == other[1]
        assert alike(one[0], other[0])


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal to half a unit in the last place of float16: another batch, another order of sums."""
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-6)


def test_random_changes_depend_on_seed_epoch_and_sample_alone(trained_from: Any) -> None:
    change = Augmentation(shift=3)
    data = live(trained_from, "set", LIVE, augmentation=change, seed=7).to_torch()
    whole = data.read(range(12))
    assert all(alike(data[i], whole[i]) for i in range(12))
    order, batches = zip(*data.mixed(5, seed=1, epoch=0), strict=True)
    assert alike(torch.cat(batches), whole[np.concatenate(order)])
    order, batches = zip(*data.mixed(5, seed=1, epoch=1), strict=True)
    assert not alike(torch.cat(batches), whole[np.concatenate(order)])
    other = live(trained_from, "set", LIVE, augmentation=change, seed=8).to_torch()
    assert not alike(other.read(range(12)), whole)


def test_shuffled_batches_hold_every_sample_once_in_an_order_of_the_seed(trained_from: Any) -> None:
    frame = trained_from.get_historical_features("set", "scattering")
    data = frame.to_torch(target="label_index")
    assert len(data.source.shards()) == 4
    batches = list(data.shuffled(5, seed=1, window=2))
    assert [len(values) for values, _ in batches] == [5, 5, 2]
    found = torch.cat([values for values, _ in batches])
    labels = torch.cat([targets for _, targets in batches])
    every = data.read(range(12))
    places = [int((every == one).flatten(1).all(1).nonzero()[0]) for one in found]
    assert sorted(places) == list(range(12)) != places
    assert labels.dtype == torch.int64
    assert torch.equal(labels, data.targets(places))
    again = torch.cat([values for values, _ in data.shuffled(5, seed=1, window=2)])
    assert torch.equal(found, again)
    later = torch.cat([values for values, _ in data.shuffled(5, seed=1, epoch=1, window=2)])
    assert not torch.equal(found, later)
