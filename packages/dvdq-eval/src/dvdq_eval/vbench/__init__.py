"""VBench, in an environment of its own."""
