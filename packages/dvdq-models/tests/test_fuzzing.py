"""A minute of broken inputs, other ones each time; ``fuzzing.py`` does more of them, and any of them again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzing.py")
CODE = """
import json, runpy, sys
run = runpy.run_path(sys.argv[1])["run"]
print(json.dumps(run(int(sys.argv[2]), 10**6, seconds=60)))
"""


@pytest.mark.parametrize("seed", [int(time.time())])
def test_broken_inputs_are_read_or_refused_in_one_line(seed: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(SCRIPT), str(seed)]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    assert not done["found"], f"fuzzing.py {seed} NUMBER+1: {done['found'][:5]}"
    assert done["read"] > 0
    assert done["refused"] > 0
