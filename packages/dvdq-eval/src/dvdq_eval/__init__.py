"""What quantization costs: quality against full precision, size, reports, and the demo."""

__version__ = "0.1.0"
