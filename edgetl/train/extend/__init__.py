"""A trained network learns further classes and images without forgetting those that it knows."""
