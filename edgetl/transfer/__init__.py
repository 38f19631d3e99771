"""Which backbone and input size suit an image set: transferability on its images against latency on this machine."""
