"""How long a pass of a transformer takes, part by part, and what a video takes."""
