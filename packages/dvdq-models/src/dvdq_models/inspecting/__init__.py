"""What a recipe does to a model, without running it: ``sizes`` of its weights, ``memory`` of a pass."""
