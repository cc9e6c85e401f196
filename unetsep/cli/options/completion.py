"""Completion of commands, options, models and files in the shell."""

from __future__ import annotations

from typing import Any

import click


def complete_model(_: click.Context, __: click.Parameter, prefix: str) -> list[Any]:
    """Complete names of models, or files, in the shell."""
    from click.shell_completion import CompletionItem

    from ...errors import UnetsepError
    from ...weights.manifest import all_models, manifest

    try:
        models = all_models()
    except UnetsepError:  # a damaged manifest of the user's does not hide the published models
        models = manifest()
    names = [name for name in models.checkpoints if name.startswith(prefix)]
    return [CompletionItem(name) for name in names] or [CompletionItem(prefix, type="file")]


def complete_file(_: click.Context, __: click.Parameter, prefix: str) -> list[Any]:
    """Complete files and folders in the shell."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(prefix, type="file")]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a SHELL's completion of commands, options and models.

    Save it in a file once, and read that file in ~/.bashrc by ". FILE", or in ~/.zshrc by
    "autoload -Uz compinit && compinit && . FILE". fish finds it as
    ~/.config/fish/completions/unetsep.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    # `kind.source` would start bash to ask for its version.
    source = kind(ctx.find_root().command, {}, "unetsep", "_UNETSEP_COMPLETE")
    click.echo(source.source_template % source.source_vars())
