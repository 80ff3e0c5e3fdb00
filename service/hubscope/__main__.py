"""`python -m hubscope`, and the program `hubscope`."""

import sys


def main() -> None:
    """Run a command. A wrapper, which stands in front of a server somebody waits for, does not load the others."""
    if sys.argv[1:2] == ["wrap"]:
        from hubscope.wrap.command import wrap_and_exit

        wrap_and_exit(sys.argv[2:])
    from hubscope.entrypoints.cli import main as cli

    cli()


if __name__ == "__main__":
    main()
