"""What a picture becomes before a network sees it."""
