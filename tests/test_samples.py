"""The drawn images: always the same, whole or absent.

Nothing but the shape of the garment tells their classes apart.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from samples import MARKER, SAMPLE_CLASSES, draw_samples


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def samples(drawn_images: Path) -> Path:
    return drawn_images


@pytest.fixture(scope="module")
def images(samples: Path) -> dict[str, tuple[list[Path], list[Image.Image], list[str]]]:
    """Files, pictures and classes of each split."""
    splits = {}
    for split in ("train", "test"):
        files = sorted((samples / split).glob("*/*.jpg"))
        splits[split] = (
            files,
            [Image.open(f).convert("RGB") for f in files],
            [f.parent.name for f in files],
        )
    return splits


def linear_accuracy(features: dict[str, np.ndarray], images: dict, strength: float) -> float:
    # PCA keeps all 400 directions that the images span: the same model as on the pixels, in a
    # tenth of the time.
    model = make_pipeline(
        StandardScaler(), PCA(), LogisticRegression(C=strength, max_iter=500, tol=1e-3)
    )
    with threadpool_limits(1):
        model.fit(features["train"], images["train"][2])
        return model.score(features["test"], images["test"][2])


def test_every_class_has_its_images(samples: Path) -> None:
    assert len(SAMPLE_CLASSES) == 10
    for split, count in (("train", 40), ("test", 15)):
        assert sorted(p.name for p in (samples / split).iterdir()) == sorted(SAMPLE_CLASSES)
        for garment in SAMPLE_CLASSES:
            names = [f"{garment}_{number:04d}.jpg" for number in range(1, count + 1)]
            assert sorted(p.name for p in (samples / split / garment).iterdir()) == names


def test_images_are_plain_jpegs_of_varied_size(images: dict) -> None:
    sizes = set()
    for file in images["train"][0] + images["test"][0]:
        with Image.open(file) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert 224 <= max(image.size) <= 288 and min(image.size) >= 170
            assert not image.getexif() and "comment" not in image.info
            sizes.add(image.size)
    assert len(sizes) > 100


def test_the_planted_faults_are_there_and_listed(samples: Path) -> None:
    faults = json.loads((samples / "planted.json").read_text())
    (copy, original), *more = faults["near_copies"].items()
    assert not more and (samples / copy).read_bytes() != (samples / original).read_bytes()
    pixels = [np.asarray(Image.open(samples / name), dtype=float) for name in (copy, original)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 6  # of 255
    ((name, shown),) = faults["wrong_labels"].items()
    assert (samples / name).parent.name != shown in SAMPLE_CLASSES


def test_no_two_images_are_alike(samples: Path) -> None:
    drawn = contents(samples)
    assert len(set(drawn.values())) == len(drawn) == 550


def test_same_seed_draws_same_images_whatever_the_counts(samples: Path, tmp_path: Path) -> None:
    few = contents(draw_samples(tmp_path / "few", n_train=2, n_test=1))
    whole = contents(samples)
    assert few == {name: whole[name] for name in few}


def test_another_seed_draws_other_images(samples: Path, tmp_path: Path) -> None:
    other = contents(draw_samples(tmp_path / "other", n_train=1, n_test=1, seed=1))
    whole = contents(samples)
    assert all(whole[name] != image for name, image in other.items())


def test_second_call_returns_at_once(samples: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in samples.rglob("*")}
    started = time.perf_counter()
    assert draw_samples(samples) == samples
    assert time.perf_counter() - started < 5  # drawing takes longer
    assert {p: p.stat().st_mtime_ns for p in samples.rglob("*")} == before


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(contents(draw_samples(tmp_path / "empty", 1, 1))) == 20


@pytest.mark.parametrize(
    "change", ["foreign file", "other seed", "missing image", "no marker", "a file"]
)
def test_folder_with_something_else_is_refused_and_kept(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    if change == "a file":
        folder.write_text("notes")
    elif change == "foreign file":
        folder.mkdir()
        (folder / "holiday.jpg").write_bytes(b"mine")
    else:
        draw_samples(folder, 1, 1, seed=5 if change == "other seed" else 0)
        if change == "missing image":
            (folder / "train" / "hat" / "hat_0001.jpg").unlink()
        if change == "no marker":
            (folder / MARKER).unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(FileExistsError, match=r"set holds .*another folder"):
        draw_samples(folder, 1, 1)
    assert sorted(folder.rglob("*")) == before and folder.exists()


def test_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_test=0"):
        draw_samples(tmp_path / "set", 1, 0)
    assert not (tmp_path / "set").exists()


def test_error_while_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> Image.Image:
        raise OSError("disk full")

    monkeypatch.setattr("samples.draw_picture", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_samples(tmp_path / "set", 1, 1)
    assert list(tmp_path.iterdir()) == []


def test_killed_run_leaves_no_half_set(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-m", "samples", str(folder)])
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".set-*/train/dress/dress_0003.jpg")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not folder.exists()
    assert len(contents(draw_samples(folder, 1, 1))) == 20


def test_terminal_command_draws_and_names_what_is_wrong(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "samples",
        str(tmp_path / "set"),
        "--train",
        "1",
        "--test",
        "1",
    ]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 train and 1 test images" in drawn.stdout
    refused = subprocess.run([*command, "--seed", "3"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Move it away" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("side", "strength"), [(32, 1e-3), (32, 1e-2), (64, 1e-3)])
def test_linear_model_on_pixels_is_not_enough(side: int, strength: float, images: dict) -> None:
    pixels = {}
    for split, (_, pictures, _) in images.items():
        small = [np.asarray(picture.resize((side, side))).ravel() / 255 for picture in pictures]
        pixels[split] = np.stack(small)
    assert 0.05 < linear_accuracy(pixels, images, strength) < 0.60


def colours(image: Image.Image, file: Path) -> list[float]:
    return [*np.asarray(image).mean((0, 1)), *np.asarray(image).std((0, 1))]


def sizes(image: Image.Image, file: Path) -> list[float]:
    return [*image.size, file.stat().st_size, file.stat().st_size / (image.width * image.height)]


def background(image: Image.Image, file: Path) -> list[float]:
    pixels = np.asarray(image)
    rim = np.concatenate([pixels[:8].reshape(-1, 3), pixels[-8:].reshape(-1, 3)])
    return [*rim.mean(0), *rim.std(0)]


@pytest.mark.parametrize("cue", [colours, sizes, background])
def test_nothing_but_the_garment_gives_the_class_away(
    cue: Callable[[Image.Image, Path], list[float]], images: dict
) -> None:
    features = {}
    for split, (files, pictures, _) in images.items():
        cues = [cue(picture, file) for file, picture in zip(files, pictures, strict=True)]
        features[split] = np.array(cues)
    # Chance is 0.10, three standard errors above it 0.17.
    assert linear_accuracy(features, images, 1.0) < 0.22
