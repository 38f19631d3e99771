"""Several questions to one backbone."""
