"""What each task adds to training."""
