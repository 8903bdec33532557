"""``dvdq-eval vbench``: one file a subcommand."""
