"""Videos of many methods over the same prompts and noise: made once, kept with where they come from, measured."""
