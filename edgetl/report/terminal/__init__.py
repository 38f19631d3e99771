"""Records as tables in the terminal."""
