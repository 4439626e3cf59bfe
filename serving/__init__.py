"""A SavedModel answers here: a development server, and a command that asks it.

Importing this package imports nothing heavy; TensorFlow and gRPC come in only
where a call needs them.
"""
