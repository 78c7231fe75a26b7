"""Which checkpoint is meant, a named one or the newest that fits the data set; its run."""

import warnings
from dataclasses import replace
from pathlib import Path

from helpers import config, runs
from helpers.model import read_card


def choose(data_digest: str, classes: list[str], named: str = "") -> Path:
    """The checkpoint to predict with: `named`, else the newest in model/ that was trained on this
    very data set.

    A model that you name may come from another data set, with a warning; one of other classes is
    refused.
    """
    if named:
        path = config.PROJECT_ROOT / named
        card = read_card(path)
        if sorted(card.classes) != sorted(classes):
            raise ValueError(
                f"Model {path} knows the classes {card.classes}, the images have {sorted(classes)}."
            )
        if card.data_digest != data_digest:
            warnings.warn(
                f"Model {path} was trained on another data set, {card.data_set}.", stacklevel=2
            )
        return path
    trained = config.trained_model()
    provided = config.PROJECT_ROOT / "model"
    paths = {path for folder in (trained.parent, provided) for path in folder.glob("*.pt")}
    # without what was trained for another home
    paths = [path for path in paths if path == trained or path.name != trained.name]
    fitting = [path for path in paths if read_card(path).data_digest == data_digest]
    if not fitting:
        raise FileNotFoundError(
            f"No model in {trained.parent} was trained on these images. "
            "Run notebook 02_train_model first, or name a model file."
        )
    # what the reader trained goes before what came with the repository
    return max(fitting, key=lambda path: (path == trained, path.stat().st_mtime))


def with_model(run: runs.Run, digest: str) -> runs.Run:
    """This run if no other model predicted in it, else a new run of the same data.

    digest: of the model that is to predict.
    """
    if run.model_digest in ("", digest):
        return replace(run, model_digest=digest).save()
    return replace(run, name=runs.new_name(), model_digest=digest).save()
