"""Data sets, and how their images reach the device."""
