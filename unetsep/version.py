"""The version of the package, where the build and the program read it."""

__version__ = "0.2.0"
