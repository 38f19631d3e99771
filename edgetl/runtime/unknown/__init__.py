"""Unknown images: how little a picture is like what a network was made from, as one number; higher is less known.

One module per score. Which of them a variant uses is chosen by measurement (`edgetl.measure.unknown`). Numpy alone.
"""
