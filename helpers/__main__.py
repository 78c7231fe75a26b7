"""The programs that `make` calls, behind one door: python -m helpers NAME [options].

Alone it lists them.
"""

import logging
import signal
import sys
from importlib import import_module

COMMANDS = {
    "tutorial": "run the six notebooks on the local stand-in (make tutorial)",
    "lab": "open JupyterLab on notebook 01, with the stand-in running (make lab)",
    "nightly": "load, predict and write back new and changed images (make batch)",
    "train": "train from a plain folder of images",
    "evaluate": "say how good a checkpoint is on a plain folder of images",
    "serve": "answer over HTTP with a trained model (make serve)",
    "cost": "estimate what a run costs (make cost)",
    "download": "fetch the public data set of photographs (make images)",
    "doctor": "say what may keep the tutorial from running, and what to do (make doctor)",
}

# a plain kill and a closed terminal end a command in order, as Ctrl-C does
END_AS_CTRL_C = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}


def listing() -> str:
    """The commands, a line each."""
    lines = [f"  {name:10} {outcome}" for name, outcome in COMMANDS.items()]
    return "\n".join(["usage: python -m helpers NAME [--help] [options]", "", *lines])


def main(arguments: list[str]) -> int:
    """Exit code of the named command; 1 where it cannot, 2 for a name that there is not."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        print(f"There is no command {name!r}.\n{listing()}", file=sys.stderr)
        return 2
    for number in END_AS_CTRL_C:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has a closed terminal ignored
            signal.signal(number, _interrupt)
    command = import_module(f"helpers.commands.{name}")  # only this one: train needs just torch
    try:
        return command.main(arguments[1:])
    except (OSError, ValueError, LookupError) as error:
        if isinstance(error, KeyError | IndexError):  # a fault of ours
            raise
        # the others name the thing, its value and the remedy
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        logging.getLogger("asyncio").disabled = True  # it would tell of the kernel that has ended
        reason = stop.args[0] if stop.args else signal.SIGINT  # a signal, or what to do now
        is_signal = isinstance(reason, int)
        print("\nStopped." if is_signal else f"\n{reason}", file=sys.stderr)
        return 128 + int(reason if is_signal else signal.SIGINT)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
