"""Makes ``conformance`` and ``mutants`` importable: pytest's importlib mode leaves sys.path as it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
