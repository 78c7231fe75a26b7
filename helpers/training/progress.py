"""Progress bars for the notebooks: widgets in JupyterLab, text in a terminal."""

from tqdm.auto import tqdm

from helpers.training.loop import Progress


class TrainingBar:
    """A bar over all iterations of a training run, to be given to `training.fit` as `report`."""

    def __init__(self, n_epochs: int):
        self.n_epochs, self.bar, self.validation = n_epochs, None, {}

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, p: Progress) -> None:
        if self.bar is None:
            self.bar = tqdm(total=p.steps * self.n_epochs, unit="batch")
        self.validation = p.validation or self.validation
        self.bar.n = (p.epoch - 1) * p.steps + p.step
        self.bar.set_description(f"epoch {p.epoch}/{self.n_epochs}", refresh=False)
        shown = {
            "loss": f"{p.loss:.3f}",
            "accuracy": f"{p.accuracy:.3f}",
            "images/s": f"{p.images_per_s:.0f}",
        }
        if self.validation:
            shown["validation accuracy"] = f"{self.validation['accuracy']:.3f}"
        self.bar.set_postfix(shown | {"left": f"{p.seconds_left:.0f} s"})
