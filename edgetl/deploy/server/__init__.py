"""A server for bundles: the Open Inference Protocol, pictures, batches, metrics and a page. Device side, no torch."""
