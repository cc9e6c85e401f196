"""The version of the package, where the build and the program read it."""

__version__ = "0.1.0"
