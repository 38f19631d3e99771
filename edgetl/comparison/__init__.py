"""Two runs, or two bundles, side by side: settings, scores on the same images, latency, size."""
