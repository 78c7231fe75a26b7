import pytest
import torch

from helpers import model
from helpers.model import Classifier, ModelCard
from helpers.training import optimise
from helpers.training.pretrained import build


def classifier(**card) -> Classifier:
    torch.manual_seed(0)
    facts = {
        "arch": "resnet18",
        "classes": ["a", "b", "c"],
        "image_size": 32,
        "data_set": "d",
        "data_digest": "x",
    }
    return Classifier(build("resnet18", 3), ModelCard(**(facts | card))).eval()


IMAGES = torch.randint(
    0, 255, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_checkpoint_brings_back_the_same_answers(tmp_path):
    original = classifier(temperature=1.7, flip=True)
    model.save(original, tmp_path / "m.pt")
    loaded = model.load(tmp_path / "m.pt")
    assert loaded.card == original.card
    assert torch.equal(loaded(IMAGES), original(IMAGES))
    from_bytes = model.load((tmp_path / "m.pt").read_bytes())
    assert torch.equal(from_bytes(IMAGES), original(IMAGES))


def test_half_precision_file_is_half_the_size(tmp_path):
    model.save(classifier(), tmp_path / "whole.pt")
    model.save(classifier(), tmp_path / "half.pt", half=True)
    ratio = (tmp_path / "half.pt").stat().st_size / (tmp_path / "whole.pt").stat().st_size
    assert ratio < 0.52
    assert torch.allclose(model.load(tmp_path / "half.pt")(IMAGES), classifier()(IMAGES), atol=0.02)


def test_confidence_belongs_to_its_own_image():
    net = classifier()
    with torch.inference_mode():
        together = net.probabilities(net(IMAGES))
        for i in range(len(IMAGES)):
            alone = net.probabilities(net(IMAGES[i : i + 1]))
            assert torch.allclose(together[i], alone[0], atol=1e-5)
    assert torch.allclose(together.sum(1), torch.ones(len(IMAGES)))


def test_temperature_softens_without_changing_the_class():
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    sharp = classifier(temperature=1.0).probabilities(logits).max(1)
    soft = classifier(temperature=5.0).probabilities(logits).max(1)
    assert torch.equal(sharp.indices, soft.indices) and (soft.values < sharp.values).all()


@pytest.mark.parametrize(
    ("accuracy", "n", "useless"), [(0.95, 80, False), (0.125, 80, True), (0.15, 4000, False)]
)
def test_a_model_that_guesses_is_called_that(accuracy, n, useless):
    judged = {"n": n, "accuracy": accuracy, "baseline": 0.1, "most_frequent": "dress"}
    said = classifier(metrics={"validation": judged}).card.standing()
    assert f"Of {n} images" in said and "always answering dress would be right for 10%" in said
    assert ("no better than guessing" in said) == useless
    assert "not noted" in classifier().card.standing()


def test_flip_averages_the_mirror_image():
    plain, averaged = classifier(), classifier(flip=True)
    expected = (plain(IMAGES) + plain(IMAGES.flip(3))) / 2
    assert torch.allclose(averaged(IMAGES), expected, atol=1e-5)
    assert torch.allclose(averaged(IMAGES), averaged(IMAGES.flip(3)), atol=1e-5)


def test_unknown_arch_is_named():
    with pytest.raises(ValueError, match="arch is 'resnet19'"):
        build("resnet19", 3)


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt does not exist. Run notebook 02"):
        model.load(tmp_path / "none.pt")
    model.save(classifier(), tmp_path / "m.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "m.pt").read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"cut\.pt cannot be read"):
        model.load(tmp_path / "cut.pt")
    torch.save({"a": 1}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        model.load(tmp_path / "foreign.pt")


def test_checkpoint_runs_no_code_of_the_file(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"card": Hostile(), "state_dict": {}}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        model.load(tmp_path / "hostile.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        ("AuthenticAMD", "avx512_bf16", True),
        ("GenuineIntel", "avx512_bf16", False),
        ("GenuineIntel", "avx512_bf16 amx_bf16", True),
        ("AuthenticAMD", "avx2", False),
        ("", "", False),
    ],
)
def test_bfloat16_where_the_processor_gains_by_it(monkeypatch, tmp_path, vendor, flags, fast):
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"vendor_id : {vendor}\nflags : fpu {flags}\n")
    monkeypatch.setattr(optimise, "CPU_INFO", cpu_info)
    assert optimise.has_fast_bfloat16(torch.device("cpu")) is fast
    assert not optimise.has_fast_bfloat16(torch.device("mps"))


def test_loading_draws_no_random_weights_and_maps_the_file(tmp_path):
    card = ModelCard("resnet18", ["a", "b"], 32, "set", "digest")
    made = Classifier(build("resnet18", 2), card)
    model.save(made, tmp_path / "model.pt")
    before = torch.get_rng_state()
    loaded = model.load(tmp_path / "model.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])
    (
        tmp_path / "model.pt"
    ).unlink()  # as when a newer model takes its place: the mapped file stays readable
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded(images), made.eval()(images))
    assert all(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("arch", ["regnet_y_400mf", "mobilenet_v3_small", "swin_t"])
def test_other_architectures_come_back(tmp_path, arch):
    made = Classifier(build(arch, 2), ModelCard(arch, ["a", "b"], 64, "set", "digest")).eval()
    model.save(made, tmp_path / "model.pt")
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(model.load(tmp_path / "model.pt")(images), made(images))


WRONG_CARDS = [
    *[{"temperature": value} for value in (0, -1, float("nan"), float("inf"), "warm", None)],
    *[{"std": value} for value in ([0.0] * 3, [1.0] * 2, [float("nan")] * 3, 1.0)],
    *[{"mean": value} for value in ([float("nan")] * 3, ["a"] * 3, [])],
    *[{"classes": value} for value in ([], ["a"], "abc", [1, 2, 3], None)],
    *[{"image_size": value} for value in (0, -1, 4, 10**6, "big", None)],
    *[{"arch": value} for value in ("resnet19", "", "convnext_tiny", None)],
    {"view": "left"},
    {"flip": "maybe"},
    {"unknown": 1},
]


@pytest.mark.parametrize("wrong", WRONG_CARDS, ids=str)
def test_a_model_whose_card_cannot_be_is_refused_by_name(tmp_path, wrong):
    path = tmp_path / "model.pt"
    model.save(classifier(), path)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"card": content["card"] | wrong}, path)
    with pytest.raises(ValueError, match=r"model\.pt .*Train it again"):
        model.load(path)


@pytest.mark.parametrize("damage", ["nan", "missing", "extra", "shape", "no card", "half a card"])
def test_a_model_that_computes_no_number_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "model.pt"
    model.save(classifier(), path)
    content = torch.load(path, weights_only=True)
    weights = content["state_dict"]
    if damage == "nan":
        weights["fc.weight"][0, 0] = float("nan")
    elif damage == "missing":
        del weights["fc.weight"]
    elif damage == "extra":
        weights["more"] = torch.zeros(3)
    elif damage == "shape":
        weights["fc.weight"] = weights["fc.weight"][:, :4]
    elif damage == "no card":
        content["card"] = [1, 2]
    else:
        del content["card"]["classes"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"model\.pt .*Train it again"):
        model.load(path)
