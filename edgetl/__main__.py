"""`python -m edgetl`, and what `torchrun -m edgetl` starts in each process."""

from edgetl.cli import process

if __name__ == "__main__":
    process()
