"""Every candidate scored and timed; the one that ships, packed."""
