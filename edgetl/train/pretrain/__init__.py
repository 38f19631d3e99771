"""A backbone learns elsewhere first: from a labelled set of other classes, or from images without labels."""
