"""Budget in, model out: which recipe gives the best model inside a latency, found by trying short ones."""
