"""The bundle, `NAME.edgetl`: one file with the models, their preprocessing, proof and provenance."""
