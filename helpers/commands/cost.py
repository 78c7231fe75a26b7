"""Estimate what a run costs, from the user's own statements and from prices (docs/cost.md)."""

import argparse
from contextlib import nullcontext

import standin
from helpers import config, runs
from helpers.snowflake import cost
from helpers.snowflake.connection import connect


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done."""
    parser = argparse.ArgumentParser(prog="python -m helpers cost", description=__doc__)
    parser.add_argument("--backend", default="", choices=("", *config.BACKENDS))
    parser.add_argument("--database", default="CLOTHING")
    parser.add_argument("--run", default="latest", help="default: the newest")
    parser.add_argument("--json", action="store_true", help="for machines; null: not known")
    for name, price in cost.PRICES.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=price, help="default %(default)s"
        )
    options = vars(parser.parse_args(arguments))
    backend = config.backend(options["backend"])
    run = runs.open_run(options["run"], backend, options["database"])
    with (
        standin.in_use() if backend == "local" else nullcontext(),
        connect(backend, options["database"], notebook="cost") as connection,
    ):
        found = cost.estimate(connection, run, {name: options[name] for name in cost.PRICES})
    if options["json"]:
        tables = [f'"{name}": {table.to_json(orient="records")}' for name, table in found.items()]
        print(f"{{{', '.join(tables)}}}")
    else:
        print(*(cost.shown(table).to_string(index=False) for table in found.values()), sep="\n\n")
    return 0
