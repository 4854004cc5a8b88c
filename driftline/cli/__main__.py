"""`python -m driftline.cli`: what `driftline up` starts its child processes with."""

from driftline.cli import main

if __name__ == "__main__":
    main()
