"""Makes the package ``benchmarks`` importable, which stands at the tree's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
