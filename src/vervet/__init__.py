"""Emotion in speech, with a vision transformer small enough for any CPU."""

__version__ = "0.1.0"
