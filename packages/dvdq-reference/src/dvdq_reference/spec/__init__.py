"""The shared words: bits, granularity, layout, recipe, quantized, errors. Standard library only."""
