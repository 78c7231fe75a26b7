"""What `python -m helpers NAME` runs: a module for each command, with a `main(arguments)`."""
