"""The parts of `python -m serving.load_test`.

Importing this package imports neither locust nor TensorFlow nor gRPC: locust
patches the sockets and threads of its process when it is imported, and has to
come before the others.
"""
