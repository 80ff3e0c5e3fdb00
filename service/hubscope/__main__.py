"""`python -m hubscope`."""

from hubscope.entrypoints.cli import main

if __name__ == "__main__":
    main()
