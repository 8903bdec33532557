"""The demo: the bundled video model at every width, beside full precision."""
