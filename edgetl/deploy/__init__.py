"""What happens to a finished bundle: engines, servers, parity with torch."""
