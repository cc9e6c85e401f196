"""The options of each command; a command imports what runs it only when it runs.

commands    all commands, in the order of the help text
separate    options of ``separate``
listen      options of ``listen``
app         options of ``app``
models      options of ``models`` and its subcommands, and of ``export-onnx``
train       options of ``train``, ``average``, ``export`` and ``publish``
evaluate    options of ``eval`` and ``compare``
completion  names of models and files in the shell, and the command that prints a completion
shared      types and options that several commands share
"""

# Choices and defaults whose module imports numpy or torch are repeated in these files as text,
# because a help text must not load those; tests/cli/test_options.py holds them equal.
