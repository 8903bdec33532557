"""Around a pipeline's call: ``prompts`` from a file, ``placement`` and ``attention`` of its parts, the ``video``."""
