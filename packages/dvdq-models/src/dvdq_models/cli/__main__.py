"""``python -m dvdq_models.cli``."""

from dvdq_models.cli import main

if __name__ == "__main__":
    main()
