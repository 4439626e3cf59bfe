"""A SavedModel answers here: the client and a development server.

Importing this package imports nothing heavy; TensorFlow and gRPC come in only
where a call needs them.
"""
