"""Observers: they watch a run and fill no role in it."""
