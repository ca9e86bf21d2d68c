"""python -m edge_lstm: the command line."""

from edge_lstm.cli.main import main

main(prog_name="edge-lstm")
