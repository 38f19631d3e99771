"""One page of the report per task."""
