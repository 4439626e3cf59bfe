"""tfmm: product classification from title, description and image."""

import os

__version__ = "0.1.0"

# Read by TensorFlow and Keras when they are first imported; a user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
