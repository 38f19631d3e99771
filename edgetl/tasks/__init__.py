"""What is asked of an image; only numpy, on the host and on the device."""
