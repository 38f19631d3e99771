"""A trained network learns further classes and images while it goes on practising those that it knows."""
