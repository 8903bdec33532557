"""Other people's quantization of the same video models, each by its own package in an environment of its own."""
