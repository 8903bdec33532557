"""How long a pass of a transformer takes, part by part, and what memory it needs."""
