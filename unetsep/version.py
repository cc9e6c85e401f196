"""The version of the package, where the build and the program read it."""

__version__ = "0.2.0"
# Rises with versions that make other stems of the same song, models and options: other sound, tags
# or layout of files. `--skip-existing` keeps stems of all versions with the present number.
STEMS_EDITION = 1
