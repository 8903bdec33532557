"""The first broken inputs of one seed; ``fuzzing.py`` does other seeds, more of them, and any of them again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fuzzing.py")
CODE = """
import json, runpy, sys
run = runpy.run_path(sys.argv[1])["run"]
print(json.dumps(run(int(sys.argv[2]), 150, seconds=60)))
"""


def test_broken_inputs_are_read_or_refused_in_one_line() -> None:
    seed = 0
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(SCRIPT), str(seed)]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    assert not done["found"], f"fuzzing.py {seed} NUMBER+1: {done['found'][:5]}"
    assert done["read"] > 0
    assert done["refused"] > 0
