"""The stages of ``gpu_quick.py``: each runs in a process of its own, step after step."""
