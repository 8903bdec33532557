"""Many videos on many devices: one worker a device, and a store that no number or order of workers changes."""

from dvdq_eval.scale.generate import generate_all

__all__ = ["generate_all"]
