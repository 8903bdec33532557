"""Tables as data, written as Markdown, on a terminal and on a page from the same cells."""
