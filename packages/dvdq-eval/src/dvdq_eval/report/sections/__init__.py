"""The sections of a chapter, a file each: what it says of a model's material, or None where there is nothing to say."""
