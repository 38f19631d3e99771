"""INT8 by static calibration, in the form that the target runs fast.

The way: `plan` decides by `targets` what is quantized, `calibrate` feeds `observers` with every planned
activation, `ranges` turns their histograms into ranges, `affine` those into scales and zero points, and `qdq`
writes them into the graph.
"""
