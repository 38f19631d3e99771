"""`python -m edgetl`, and what `torchrun -m edgetl` starts in each process."""

from edgetl.cli import main

if __name__ == "__main__":
    main()
