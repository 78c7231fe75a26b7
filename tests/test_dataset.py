"""Images and labels from a folder and from a stage, whatever the network does meanwhile."""

import pickle
import shutil
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scenery.drawing import draw_folder
from scenery.faulty_server import FaultyServer
from scenery.tables import make_tables
from snowflake.connector import SnowflakeConnection
from torch.utils.data import DataLoader

from helpers.images import Downloader, ImageError, evaluation_transform
from helpers.labels import data_digest, label_of
from helpers.snowflake.connection import connect
from helpers.training.image_folder import ImageFolder
from helpers.training.snowflake_folder import SnowflakeImageFolder

TO_SQUARE = partial(evaluation_transform, size=24)
Staged = tuple[Path, SnowflakeConnection]


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "train", n=4)


@pytest.fixture(scope="module")
def staged(tmp_path_factory, running_standin):
    """A table and a stage that hold twelve images, in a database of their own."""
    folder = draw_folder(tmp_path_factory.mktemp("staged") / "train", n=4)
    connection = connect("local")
    make_tables(connection, folder, "DATASET_TESTS", ["clothing_dataset_train"])
    yield folder, connection
    connection.close()


def images_of(staged: Staged, **options: Any) -> SnowflakeImageFolder:
    _, connection = staged
    options = {"transform": TO_SQUARE, "side": 32} | options
    return SnowflakeImageFolder(
        "clothing_train", "relative_path", "clothing_dataset_train", connection, **options
    )


def test_label_is_the_lowest_folder_compared_exactly():
    assert label_of("a/b/t-shirt/1.jpg") == "t-shirt" != label_of("shirt/1.jpg")
    with pytest.raises(ValueError, match=r"'1\.jpg' lies in no class folder"):
        label_of("1.jpg")


def test_folder_gives_images_and_labels(folder):
    data = ImageFolder(folder, transform=TO_SQUARE, target_transform=lambda label: label + 100)
    image, label = data[11]
    assert len(data) == 12 and data.classes == ["hat", "shirt", "t-shirt"]
    assert data.class_to_idx["t-shirt"] == 2
    assert image.shape == (3, 24, 24) and image.dtype == torch.uint8 and label == 102


def test_missing_folder_and_empty_class_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        ImageFolder(tmp_path / "nowhere")
    (folder / "skirt").mkdir()
    with pytest.raises(ValueError, match="skirt holds no image"):
        ImageFolder(folder)


def test_cache_spares_the_decoding_and_a_changed_image_is_read_anew(folder, tmp_path, monkeypatch):
    data = ImageFolder(folder, side=20, cache=tmp_path / "cache")
    first = data.load(0)
    (folder / data.paths[0]).chmod(0o000)
    monkeypatch.setattr(data, "read", None)  # a second read would fail
    assert torch.equal(data.load(0), first) and min(first.shape[1:]) == 20
    (folder / data.paths[0]).chmod(0o644)
    (folder / data.paths[0]).write_bytes((folder / data.paths[-1]).read_bytes())
    changed = ImageFolder(folder, side=20, cache=tmp_path / "cache")
    assert (changed.load(0).float() - first.float()).abs().mean() > 30


def test_damaged_cache_entry_is_made_anew(folder, tmp_path):
    data = ImageFolder(folder, side=20, cache=tmp_path / "cache")
    first = data.load(0)
    [entry] = (tmp_path / "cache").rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:100])
    assert torch.equal(data.load(0), first)
    assert torch.equal(load_file(entry)["image"], first)


def test_broken_image_is_left_out_or_raised_with_its_path(folder):
    (folder / "hat" / "001.jpg").write_text("no image")
    data = ImageFolder(folder, transform=TO_SQUARE)
    with pytest.warns(UserWarning, match=r"hat/001\.jpg is left out"):
        items = data.__getitems__([0, 1, 2])
    assert len(items) == 2 and list(data.broken) == ["hat/001.jpg"]
    with pytest.raises(ImageError, match=r"hat/001\.jpg: not a readable image"):
        ImageFolder(folder, on_error="raise").map(data.load, [1])
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        ImageFolder(folder, on_error="ignore")


def test_digest_knows_paths_and_sizes_but_no_order():
    assert data_digest({"a": 1, "b": 2}) == data_digest({"b": 2, "a": 1})
    assert len({data_digest(d) for d in ({"a": 1}, {"a": 2}, {"b": 1}, {})}) == 4


def test_stage_gives_the_same_images_as_the_folder(staged):
    folder, _ = staged
    there = images_of(staged)
    here = ImageFolder(folder, side=32, transform=TO_SQUARE)
    assert there.paths == here.paths and there.classes == here.classes
    assert data_digest(there.sizes) == data_digest(here.sizes)
    some = [0, 5, 11]
    for index, (image, label) in zip(some, there.__getitems__(some), strict=True):
        expected, expected_label = here[index]
        assert torch.equal(image, expected) and label == expected_label


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_workers_hold_no_connection(staged, method):
    data = images_of(staged)
    assert b"password" not in pickle.dumps(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context=method)
        batches = list(loader)
    assert sum(len(labels) for _, labels in batches) == 12
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)


def believe_good_until(data: SnowflakeImageFolder, moment: float) -> None:
    data._urls = {path: (url, moment) for path, (url, _) in data._urls.items()}


def test_expired_urls_are_signed_anew(staged, monkeypatch):
    data = images_of(staged, url_seconds=1)
    signed = []
    sign = data._sign_urls

    def noted(*place: Any, paths: list[str], **options: Any) -> list[str]:
        signed.append(paths)
        return sign(*place, paths=paths, **options)

    monkeypatch.setattr(data, "_sign_urls", noted)
    data.__getitems__([0, 1])
    believe_good_until(data, time.monotonic() + 3600)
    time.sleep(2.1)
    assert data[0][0].shape == (3, 24, 24)  # 403, signed anew
    assert [len(paths) for paths in signed] == [12, 1] and signed[1] == data.paths[:1]
    believe_good_until(data, 0)  # known to be old
    data.__getitems__([0, 1, 2])
    assert [len(paths) for paths in signed] == [12, 1, 12]


def behind(server: FaultyServer, data: SnowflakeImageFolder) -> SnowflakeImageFolder:
    """The same images, their URLs signed by a server with faults."""
    vars(data)["_sign_urls"] = lambda connection, paths: server.sign(paths)
    return data


def test_every_image_survives_a_faulty_server(staged, tmp_path):
    folder, _ = staged
    calm = images_of(staged)
    with FaultyServer(folder, busy=0.3, cut=0.2) as server:
        patient = Downloader(attempts=20, backoff_s=0.001)
        data = behind(server, images_of(staged, downloader=patient, cache=tmp_path / "cache"))
        items = data.__getitems__(list(range(12)))
    assert len(items) == 12 and not data.broken and sum(server.requests.values()) > 12
    assert all(torch.equal(image, calm[i][0]) for i, (image, _) in enumerate(items))


def test_training_outlives_its_urls(staged):
    """Twelve images, two at a time, through URLs that live for less time than all of them take."""
    folder, _ = staged
    with FaultyServer(folder, url_seconds=0.3, delay_s=0.1) as server:
        data = behind(server, images_of(staged))  # believes that its URLs live an hour
        batches = [data.__getitems__([i, i + 1]) for i in range(0, 12, 2)]
        assert [label for batch in batches for _, label in batch] == data.labels.tolist()
    assert server.statuses[403] >= 1 and server.statuses[200] == 12


def test_what_is_no_image_is_left_out_with_its_path(staged, tmp_path):
    """A page instead of an image, a file that is gone, and one whose server never answers well."""
    folder, _ = staged
    served = tmp_path / "served"
    shutil.copytree(folder, served)
    (served / "hat/000.jpg").write_text("<html>Please log in</html>")
    (served / "hat/001.jpg").unlink()
    quick = Downloader(attempts=2, backoff_s=0.001)
    with FaultyServer(served) as server:
        data = behind(server, images_of(staged, downloader=quick, cache=tmp_path / "cache"))
        with pytest.warns(UserWarning, match="is left out"):
            assert len(data.__getitems__(list(range(12)))) == 10
    assert data.broken == {
        "hat/000.jpg": "hat/000.jpg: not a readable image (UnidentifiedImageError)",
        "hat/001.jpg": "hat/001.jpg: HTTP status 404",
    }
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 10  # nothing broken is kept
    with FaultyServer(folder, busy=1) as server:
        data = behind(server, images_of(staged, downloader=quick, on_error="raise"))
        said = r"hat/000\.jpg: download failed after 2 attempts: HTTP status 503"
        with pytest.raises(ImageError, match=said):
            data.__getitems__([0])


def test_second_epoch_touches_no_network(staged, tmp_path):
    class Counting(Downloader):
        n = 0

        def __call__(self, url: str) -> tuple[bytes, int]:
            self.n += 1
            return super().__call__(url)

    downloader = Counting()
    data = images_of(staged, cache=tmp_path / "cache", downloader=downloader)
    for _ in range(2):
        assert len(data.__getitems__(list(range(12)))) == 12
    assert downloader.n == 12 and len(data._urls) == 12


def test_missing_table_and_empty_table_name_the_notebook(staged):
    with pytest.raises(LookupError, match="Run notebook 01_set_up_snowflake"):
        SnowflakeImageFolder("nothing", "relative_path", "clothing_dataset_train", staged[1])
    with pytest.raises(ValueError, match="lists no images"):
        SnowflakeImageFolder("clothing_test", "relative_path", "clothing_dataset", staged[1])


def test_links_are_followed_and_what_is_hidden_or_no_file_is_left_out(folder, tmp_path):
    elsewhere = draw_folder(tmp_path / "elsewhere", n=2, colours={"coat": (9, 9, 9)}) / "coat"
    before = ImageFolder(folder)
    for hidden in (".ipynb_checkpoints", ".Trash-1000/files", "hat/.thumbnails", "__MACOSX/hat"):
        (folder / hidden).mkdir(parents=True)
        shutil.copy(elsewhere / "000.jpg", folder / hidden / "000.jpg")
    (folder / "hat" / "._001.jpg").write_text("of a Mac")
    (folder / "hat" / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    (folder / "hat" / "folder.jpg").mkdir()
    (folder / "hat" / "round").symlink_to(folder)  # a cycle
    assert ImageFolder(folder).paths == before.paths
    (folder / "coat").symlink_to(elsewhere)
    data = ImageFolder(folder)
    assert data.classes == sorted([*before.classes, "coat"])
    assert set(data.paths) - set(before.paths) == {"coat/000.jpg", "coat/001.jpg"}
    assert data.load(data.paths.index("coat/000.jpg")).shape[0] == 3
