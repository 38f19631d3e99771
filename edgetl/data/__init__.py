"""Images: where they lie, how they are split, what is wrong with them, how they are read fast. No torch."""
