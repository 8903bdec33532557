"""From a pipeline to a page that shows what quantization does to it."""
