"""What counts as an image of a folder, what is left out, and which names are refused."""

import os
import socket
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scenery.drawing import draw_folder

from helpers.folders import walk
from helpers.training.image_folder import ImageFolder

COMPOSED = unicodedata.normalize("NFC", "béret")
APART = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture
def folder(tmp_path) -> Path:
    return draw_folder(tmp_path / "train", n=1)


def add(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    "path",
    [".x/1.jpg", "hat/.ipynb_checkpoints/1.jpg", ".Trash-1000/files/1.jpg", "__MACOSX/1.jpg"],
)
def test_hidden_folders_are_no_classes(folder, path):
    add(folder / path)
    images = walk(folder)
    assert len(images.files) == 3 and list(images.left_out.values()) == ["hidden"]


def test_linked_classes_and_files_count_and_cycles_end(folder, tmp_path):
    elsewhere = draw_folder(tmp_path / "elsewhere", n=2)
    (folder / "coat").symlink_to(elsewhere / "hat")
    (folder / "hat" / "more.jpg").symlink_to(elsewhere / "shirt" / "000.jpg")
    (folder / "hat" / "round").symlink_to(folder)
    images = walk(folder)
    assert [path for path in images.files if path.startswith(("coat", "hat/more"))] == [
        "coat/000.jpg",
        "coat/001.jpg",
        "hat/more.jpg",
    ]
    assert images.left_out == {"hat/round": "a link back to a folder around it"}
    assert ImageFolder(folder).classes == ["coat", "hat", "shirt", "t-shirt"]


def test_what_is_no_file_is_left_out_and_named(folder):
    (folder / "hat" / "gone.jpg").symlink_to("/nowhere")
    os.mkfifo(folder / "hat" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "hat" / "socket.jpg"))
        add(folder / "hat" / "a.heic")
        images = walk(folder)
    reason = "no file that may be read"
    assert len(images.files) == 3
    assert images.left_out == {
        "hat/a.heic": "no image by its name",
        "hat/gone.jpg": reason,
        "hat/pipe.jpg": reason,
        "hat/socket.jpg": reason,
    }
    with pytest.warns(UserWarning, match=r"3 images, 4 left out: hat/a.heic \(no image"):
        ImageFolder(folder)


def test_a_file_that_cannot_be_read_any_more_is_left_out_of_its_batch(folder):
    data = ImageFolder(folder)
    (folder / data.paths[1]).unlink()
    with pytest.warns(UserWarning, match="is left out: .*not readable: No such file"):
        assert len(data.__getitems__([0, 1, 2])) == 2
    assert list(data.broken) == [data.paths[1]]


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".tif", ".tiff", ".jfif", ".JPG"])
def test_what_can_be_decoded_counts(folder, suffix):
    add(folder / "hat" / f"b{suffix}")
    assert f"hat/b{suffix}" in walk(folder).files


def test_an_accent_in_two_spellings_is_one_class(folder):
    add(folder / COMPOSED / "1.jpg")
    add(folder / APART / "2.jpg")
    assert [path for path in walk(folder).files if "ret/" in path] == [
        f"{COMPOSED}/2.jpg",
        f"{COMPOSED}/1.jpg",
    ]
    add(folder / APART / "1.jpg")
    with pytest.raises(ValueError, match=r"e\\u0301ret.* differ only in how an accent"):
        walk(folder)


@settings(max_examples=50)
@given(some.sampled_from("\n\t\r\x7f\u2028\\ ."), some.booleans())
def test_names_that_would_not_arrive_are_refused(tmp_path_factory, character, last):
    folder = tmp_path_factory.mktemp("names")
    inside = character not in " ."
    name = f"a{character}b" if inside else (f"a{character}" if last else f" a{character}")
    add(folder / name / "1.jpg")
    with pytest.raises(ValueError, match=r"would not arrive as it is\. Rename it"):
        walk(folder)


def test_bytes_that_are_no_utf8_are_refused(folder):
    os.close(os.open(os.fsencode(folder / "hat") + b"/caf\xe9.jpg", os.O_CREAT))
    with pytest.raises(ValueError, match=r"'hat/caf\\udce9\.jpg'"):
        walk(folder)


def test_a_class_of_several_folders_is_said(folder):
    add(folder / "hat/2023/a.jpg")
    add(folder / "shirt/2023/a.jpg")
    with pytest.warns(UserWarning, match="lowest folder is the class.*hat/2023, shirt/2023"):
        walk(folder)


def test_classes_that_differ_in_case_are_said(folder):
    add(folder / "Hat/a.jpg")
    with pytest.warns(UserWarning, match="Hat, hat"):
        walk(folder)
