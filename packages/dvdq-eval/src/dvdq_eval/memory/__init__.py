"""What a transformer weighs by each method, and what a pass needs beside the weights."""
