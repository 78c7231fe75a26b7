"""Parameters as schedulers give them: converted where the meaning is plain, else refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands.tutorial import NOTEBOOKS
from helpers.parameters import KINDS, checked
from helpers.training.loop import Parameters

FLAGS = ("only_new", "freeze", "flip")
WHOLE = ("n_epochs", "batch_size", "per_class", "per_story", "n_workers", "seed", "url_seconds")
SHARES = ("downsample_to", "target", "mixing", "label_smoothing", "averaging", "crop_scale")
TEXTS = ("run", "run_name", "images", "database", "backend", "model_path", "arch", "weights")


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_means_what_it_says(name):
    for text in ("true", "True", "TRUE", "yes", "1", 1, True):
        assert checked({name: text}) == {name: True}
    for text in ("false", "False", "no", "0", 0, False):
        assert checked({name: text}) == {name: False}
    for text in ("", "perhaps", None, 2, [], "None"):
        with pytest.raises(ValueError, match=f"Parameter {name} is "):
            checked({name: text})


@pytest.mark.parametrize("name", WHOLE)
@given(number=st.integers(1, 1000))
def test_a_whole_number_may_come_as_text(name, number):
    assert checked({name: str(number)}) == checked({name: number}) == {name: number}


@pytest.mark.parametrize("name", [*WHOLE, "image_size"])
@given(value=st.one_of(st.booleans(), st.none(), st.floats(0.1, 0.9), st.text("ab.- ", max_size=3)))
def test_what_is_no_whole_number_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError) as refused:
        checked({name: value})
    assert f"Parameter {name} is {value!r}." in str(refused.value)


@pytest.mark.parametrize("name", SHARES)
@given(share=st.floats(0.001, 1))
def test_a_share_may_come_as_text(name, share):
    assert checked({name: str(share)}) == checked({name: share}) == {name: share}


@pytest.mark.parametrize("name", [*SHARES, "base_lr", "augmentation", "weight_decay"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 11, 1e300])
@pytest.mark.parametrize("kind", [float, str])
def test_a_number_that_makes_no_sense_is_refused(name, value, kind):
    with pytest.raises(ValueError, match=f"Parameter {name} is "):
        checked({name: kind(value)})


@pytest.mark.parametrize("name", [*SHARES, "base_lr", "augmentation", "weight_decay"])
@pytest.mark.parametrize("value", ["", "much", None, [1], True, False, "True"])
def test_what_is_no_sensible_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"Parameter {name} is "):
        checked({name: value})


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_looks_like_a_number_stays_a_text(name):
    assert checked({name: 20261201}) == {name: "20261201"}
    for value in (None, True, ["a"], {}):
        with pytest.raises(ValueError, match=f"Parameter {name} is "):
            checked({name: value})


def test_options_may_be_json():
    assert checked({"options": '{"freeze": false}'}) == {"options": {"freeze": False}}
    for value in ("freeze", [1], 3, '["a"]'):
        with pytest.raises(ValueError, match="Parameter options is "):
            checked({"options": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0),
        ("batch_size", -3),
        ("image_size", 7),
        ("url_seconds", 604_801),
        ("n_workers", -1),
        ("target", 0),
        ("downsample_to", 0),
        ("validation_share", 1),
        ("stages", "elsewhere"),
        ("view", "left"),
        ("seed", 2**19),
        ("n_epochs", 10**9),
        ("batch_size", "9" * 5000),
        ("per_class", 2**63),
        ("n_workers", 10**5),
        ("image_size", 10**5),
        ("base_lr", 1000),
        ("save_every_s", True),
        ("save_every_s", 1e12),
    ],
)
def test_ranges(name, value):
    with pytest.raises(ValueError, match=f"Parameter {name} is {value!r}"):
        checked({name: value})


def test_every_parameter_of_every_notebook_is_known():
    import papermill

    from helpers.config import PROJECT_ROOT

    names: set[str] = set()
    for notebook in NOTEBOOKS:
        path = str(PROJECT_ROOT / "notebooks" / f"{notebook}.ipynb")
        names |= papermill.inspect_notebook(path).keys()
    assert names - KINDS.keys() == {"cluster"}  # may be Dask's own object, too


def test_other_variables_are_left_alone():
    assert checked({"total": "x", "In": [], "_": None}) == {}


def test_training_takes_converted_parameters_and_refuses_others():
    assert Parameters(**{"n_epochs": "2", "freeze": "no"}) == Parameters(n_epochs=2, freeze=False)
    wrong: dict[str, Any] = {"n_epochs": -1, "base_lr": "fast", "view": 3, "save_every_s": "x"}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"Parameter {name} is {value!r}"):
            Parameters(**{name: value})
