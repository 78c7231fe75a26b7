"""The public data set: whole or not at all, from a local server in its place."""

import functools
import http.server
import threading
import zipfile

import pytest
from scenery.drawing import draw_folder

from helpers.commands.download import download

COUNTS = {"train": 6, "validation": 3}


@pytest.fixture
def url(tmp_path):
    """A local server with an archive as the public one: one folder, in it the splits."""
    draw_folder(tmp_path / "content" / "train", n=2)
    draw_folder(tmp_path / "content" / "validation", n=1)
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "master.zip", "w") as archive:
        for path in (tmp_path / "content").rglob("*.jpg"):
            archive.write(path, f"set-master/{path.relative_to(tmp_path / 'content')}")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/master.zip"
    server.shutdown()
    server.server_close()


def test_archive_becomes_a_folder_of_splits(url, tmp_path):
    folder = download(tmp_path / "data" / "set", url, COUNTS)
    assert len(list(folder.glob("train/*/*.jpg"))) == 6
    assert len(list(folder.glob("validation/*/*.jpg"))) == 3
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["set"]
    assert download(folder, "http://127.0.0.1:1/never-asked", COUNTS) == folder


def test_wrong_counts_leave_nothing_behind(url, tmp_path):
    with pytest.raises(ValueError, match="holds 6 images, not 7"):
        download(tmp_path / "data" / "set", url, COUNTS | {"train": 7})
    assert list((tmp_path / "data").iterdir()) == []


def test_missing_archive_leaves_nothing_behind(url, tmp_path):
    with pytest.raises(OSError, match="404"):
        download(tmp_path / "data" / "set", url.replace("master", "other"), COUNTS)
    assert list((tmp_path / "data").iterdir()) == []
