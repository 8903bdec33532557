"""What the page plots, a file for each kind of figure; all are drawn by :class:`dvdq_eval.charts.plot.Plot`."""
