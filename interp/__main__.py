"""The console script, and `python -m interp`: the command line, which takes a moment to import."""

import sys


def main() -> None:
    """Runs one command (`interp.cli.main`); interrupting its imports is no error either."""
    try:
        from interp.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
