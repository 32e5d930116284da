"""`phaul completion`: what makes a shell complete verbs, options and ids.  Runs on both hosts."""

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print what completes `phaul` in your shell.

    \b
    bash  eval "$(phaul completion bash)"     in ~/.bashrc
    zsh   eval "$(phaul completion zsh)"      in ~/.zshrc
    fish  phaul completion fish | source      in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click knows no {shell}")
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "phaul", "_PHAUL_COMPLETE").source())
    return 0
