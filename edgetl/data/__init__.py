"""Images: where they lie, how they are split, what is wrong with them, and how they are read fast. Torch-free."""
