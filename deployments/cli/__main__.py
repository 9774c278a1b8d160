"""``python -m deployments.cli``: the command where it is not on the path, as in the processes of a training."""

from deployments.cli import main

if __name__ == "__main__":
    main()
