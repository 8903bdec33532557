"""One self-contained HTML page: videos as data, charts as SVG, nothing fetched from anywhere."""

from dvdq_eval.report.page import ReportVideo, render

__all__ = ["ReportVideo", "render"]
