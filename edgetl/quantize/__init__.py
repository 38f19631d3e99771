"""INT8 by static calibration, in the form that the target runs fast.

The way: `plan` decides by `targets` what is quantized, `calibrate` feeds `observers` with every planned activation
(`store` keeps what they saw), `ranges` turns their histograms into ranges, `affine` those into scales and zero points,
and `qdq` writes them into the graph. `form` holds one such quantization together. `recover` wins back accuracy with
`equalise`, `reconstruct` (bias correction and AdaRound) and `aware` (training), which run the graph in torch by
`replay`; `sensitivity` ranks the layers. `dynamic` and `weight_only` make the other precisions. `stage` does it
all in order.
"""
