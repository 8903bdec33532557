"""The format ``asym_w4a8_int8`` of ComfyUI's files: what is fixed in it, and how long its search goes on."""

from __future__ import annotations

GROUP = 16
"""Channels that share a small scale."""
LEVELS = (
    -0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720,
    0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671,
)  # fmt: skip
"""Those that comfy-kitchen's kernels have built in, stored as float32: with others its fastest way is closed."""
LARGEST = 127
"""Of the integers that a level makes."""
START_ROUNDS = 3
"""Of alternating least squares on the levels themselves."""
ROUNDS = 2
"""Of small scales and the row's scale in turns."""
NEIGHBOURS = (-2, -1, 0, 1, 2)
"""Which float8 numbers around a small scale are tried."""
