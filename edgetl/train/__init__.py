"""Fine-tuning: the loop that train, prune and distill share, and the teacher's stage."""
