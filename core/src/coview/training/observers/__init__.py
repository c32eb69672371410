"""What watches a run and fills no role in it."""
