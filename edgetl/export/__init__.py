"""From a network to files that engines read: ONNX (`onnx`, host side) and engines (`tensorrt`, device side).

The device side imports this package too, so nothing heavy is imported here.
"""
