"""Write, open and convert trained weights."""
