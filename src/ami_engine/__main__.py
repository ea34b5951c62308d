"""`python -m ami_engine` is the command `ami`."""

from ami_engine.cli import main

if __name__ == "__main__":
    main()
