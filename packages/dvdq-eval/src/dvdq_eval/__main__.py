"""``python -m dvdq_eval``, where the command is not installed."""

from dvdq_eval.cli import main

if __name__ == "__main__":
    main()
