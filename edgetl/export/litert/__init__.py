"""An exported ONNX graph as a .tflite file for LiteRT (TensorFlow Lite), with the scales that the quantizer found."""
