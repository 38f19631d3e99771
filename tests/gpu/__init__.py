"""What only a machine with an NVIDIA GPU can show, in one report: `make test-gpu`, eight minutes, no network."""
