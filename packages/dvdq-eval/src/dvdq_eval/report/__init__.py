"""One self-contained HTML page: videos as data, charts as SVG, nothing fetched from anywhere."""
