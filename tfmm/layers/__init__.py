"""Layers of our own, one public layer a file."""
