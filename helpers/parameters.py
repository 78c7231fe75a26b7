"""Parameters as a scheduler or papermill gives them, maybe as text: converted and checked."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, Json, ValidationError, create_model

# by way of text, which they may come as: then neither is True, and a whole number not 2.5
Whole = Annotated[int, BeforeValidator(str)]
Count = Annotated[Whole, Field(ge=1, le=10**6)]
Share = Annotated[float, BeforeValidator(str), Field(ge=0, le=1)]
Number = Annotated[float, BeforeValidator(str), Field(ge=0, le=10**6)]
# of the notebooks and of training, by name
KINDS: dict[str, Any] = {
    **dict.fromkeys(("backend", "database", "run", "run_name", "images", "model_path"), str),
    **dict.fromkeys(("arch", "weights", "device"), str),
    "stages": Literal["internal", "external"],
    "view": Literal["centre", "whole"],
    **dict.fromkeys(("n_epochs", "batch_size", "per_class", "per_story"), Count),
    "image_size": Annotated[Whole, Field(ge=8, le=4096)],  # pixels
    "n_workers": Annotated[Whole, Field(ge=0, le=10**4)],
    "seed": Annotated[Whole, Field(ge=0, lt=2**19)],  # with epoch and image it makes 64 bits
    "url_seconds": Annotated[Whole, Field(ge=0, le=7 * 24 * 3600)],  # Snowflake refuses more
    "base_lr": Annotated[Number, Field(gt=0, le=10)],
    **dict.fromkeys(("augmentation", "weight_decay"), Annotated[Number, Field(le=10)]),
    "save_every_s": Number,
    **dict.fromkeys(("downsample_to", "target", "crop_scale"), Annotated[Share, Field(gt=0)]),
    **dict.fromkeys(("mixing", "label_smoothing", "averaging"), Share),
    "validation_share": Annotated[Share, Field(lt=1)],
    **dict.fromkeys(("only_new", "freeze", "flip"), bool),
    "options": Json[dict] | dict,
}
FIELDS: dict[str, Any] = {name: (kind, None) for name, kind in KINDS.items()}
Given = create_model(
    "Given",
    __config__=ConfigDict(coerce_numbers_to_str=True, extra="ignore", protected_namespaces=()),
    **FIELDS,
)


def checked(given: dict[str, Any]) -> dict[str, Any]:
    """Those of the variables that are parameters, each of its kind and in its range.

    papermill gives `-p only_new false` and `-r n_workers 2` as text. Raises ValueError for the
    first that is something else.

    >>> checked({"only_new": "false", "n_workers": "2", "run_name": 20261201, "other": None})
    {'run_name': '20261201', 'n_workers': 2, 'only_new': False}
    """
    try:
        return Given.model_validate(given).model_dump(exclude_unset=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        (name, *_) = wrong["loc"]
        raise ValueError(f"Parameter {name} is {given[str(name)]!r}. {wrong['msg']}.") from None
