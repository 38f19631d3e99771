"""Another domain without labels: a camera, a light, a line that the labelled images do not show."""
