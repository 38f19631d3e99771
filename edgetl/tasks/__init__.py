"""What is asked of an image; numpy alone, on the host and on the device."""
