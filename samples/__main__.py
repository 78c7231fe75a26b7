"""Draw the sample set: python -m samples DIR [--train 40] [--test 15] [--seed 0]."""

import argparse
from pathlib import Path

from samples import draw_samples


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m samples", description="Draw the sample images."
    )
    parser.add_argument("folder", type=Path, help="where to put train/<class>/ and test/<class>/")
    parser.add_argument("--train", type=int, default=40, help="train images a class (40)")
    parser.add_argument("--test", type=int, default=15, help="test images a class (15)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other images (0)")
    options = parser.parse_args()
    try:
        folder = draw_samples(options.folder, options.train, options.test, options.seed)
    except (FileExistsError, ValueError) as error:
        parser.error(str(error))
    print(f"{folder}: {options.train} train and {options.test} test images in each of 10 classes")


if __name__ == "__main__":
    main()
