"""Labelled boxes as people have them: COCO, YOLO, Pascal VOC and CSV."""
