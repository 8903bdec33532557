"""Broken copies of a backend, each of which conformance has to refuse."""
