"""Other ways from a JPEG to a label with the same ONNX model, each as its users write it.

Every peer is `load(subject, threads)`, which gives a function from a JPEG's bytes to a class index. What is not
installed is named, never left out without a word. The floors are what a good engineer writes by hand.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.subjects import Subject

Label = Callable[[bytes], int]
Load = Callable[[Subject, int], Label]


def onnx_session(model: Path, threads: int):
    """ONNX Runtime as it comes, on `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def floor_pillow(subject: Subject, threads: int) -> Label:
    """By hand: reduced decoding and one resampling in Pillow, planes, scale and shift, the engine's bare call."""
    session = onnx_session(subject.model, threads)
    size, side = subject.spec.size, subject.spec.resized_side
    mean, std = np.array(subject.spec.mean, np.float32), np.array(subject.spec.std, np.float32)
    scale = (1 / (255 * std)).astype(np.float32).reshape(3, 1, 1)
    shift = (-mean / std).astype(np.float32).reshape(3, 1, 1)

    def label(content: bytes) -> int:
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
        image.draft(None, (side, side))
        width, height = image.size
        kept = size * min(width, height) / side
        left, top = (width - kept) / 2, (height - kept) / 2
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + kept, top + kept))
        planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        images = np.multiply(planes, scale, dtype=np.float32)
        images += shift
        return int(session.run(None, {"images": images[None]})[0].argmax())

    return label


def floor_opencv(subject: Subject, threads: int) -> Label:
    """By hand: OpenCV's reduced decoding and its area resampling, which gives other pixels than training saw."""
    import cv2

    cv2.setNumThreads(threads)
    session = onnx_session(subject.model, threads)
    size, side = subject.spec.size, subject.spec.resized_side
    mean, std = np.array(subject.spec.mean, np.float32), np.array(subject.spec.std, np.float32)
    scale = (1 / (255 * std)).astype(np.float32).reshape(3, 1, 1)
    shift = (-mean / std).astype(np.float32).reshape(3, 1, 1)
    reduced = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        1: cv2.IMREAD_COLOR,
    }

    def label(content: bytes) -> int:
        with Image.open(io.BytesIO(content)) as header:
            shorter = min(header.size)
        flag = next(flag for factor, flag in reduced.items() if shorter // factor >= side or factor == 1)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        height, width = image.shape[:2]
        kept = round(size * min(width, height) / side)
        left, top = (width - kept) // 2, (height - kept) // 2
        image = cv2.resize(
            image[top : top + kept, left : left + kept], (size, size), interpolation=cv2.INTER_AREA
        )
        planes = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
        images = np.multiply(planes, scale, dtype=np.float32)
        images += shift
        return int(session.run(None, {"images": images[None]})[0].argmax())

    return label


def torchvision_pillow(subject: Subject, threads: int) -> Label:
    """torchvision's evaluation transforms on a Pillow image, then ONNX Runtime."""
    import torch
    from torchvision import transforms

    torch.set_num_threads(threads)
    session = onnx_session(subject.model, threads)
    prepare = transforms.Compose(
        [
            transforms.Resize(subject.spec.resized_side, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(subject.spec.size),
            transforms.ToTensor(),
            transforms.Normalize(subject.spec.mean, subject.spec.std),
        ]
    )

    def label(content: bytes) -> int:
        images = prepare(Image.open(io.BytesIO(content)).convert("RGB"))[None].numpy()
        return int(session.run(None, {"images": images})[0].argmax())

    return label


def torchvision_own(subject: Subject, threads: int) -> Label:
    """torchvision's own JPEG decoder and tensor transforms, then ONNX Runtime."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    torch.set_num_threads(threads)
    session = onnx_session(subject.model, threads)
    prepare = v2.Compose(
        [
            v2.Resize(subject.spec.resized_side, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(subject.spec.size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(subject.spec.mean, subject.spec.std),
        ]
    )

    def label(content: bytes) -> int:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        images = prepare(decode_jpeg(encoded, mode=ImageReadMode.RGB))[None].numpy()
        return int(session.run(None, {"images": images})[0].argmax())

    return label


def timm_pillow(subject: Subject, threads: int) -> Label:
    """timm's evaluation transform on a Pillow image, then ONNX Runtime."""
    import timm.data
    import torch

    torch.set_num_threads(threads)
    session = onnx_session(subject.model, threads)
    prepare = timm.data.create_transform(
        input_size=(3, subject.spec.size, subject.spec.size),
        interpolation="bicubic",
        mean=subject.spec.mean,
        std=subject.spec.std,
        crop_pct=subject.spec.crop_fraction,
        is_training=False,
    )

    def label(content: bytes) -> int:
        images = prepare(Image.open(io.BytesIO(content)).convert("RGB"))[None].numpy()
        return int(session.run(None, {"images": images})[0].argmax())

    return label


def opencv_dnn(subject: Subject, threads: int) -> Label:
    """OpenCV alone: imdecode, resize, blobFromImage, dnn."""
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(subject.model))
    size, side = subject.spec.size, subject.spec.resized_side
    mean = tuple(255 * value for value in subject.spec.mean)
    std = np.array(subject.spec.std, np.float32).reshape(1, 3, 1, 1)

    def label(content: bytes) -> int:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        factor = side / min(height, width)
        image = cv2.resize(image, (round(width * factor), round(height * factor)))
        top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
        image = image[top : top + size, left : left + size]
        blob = cv2.dnn.blobFromImage(image, 1 / 255, (size, size), mean, swapRB=True) / std
        net.setInput(blob)
        return int(net.forward().argmax())

    return label


def ultralytics_classify(subject: Subject, threads: int) -> Label:
    """Ultralytics' `YOLO(...).predict` of the ONNX model, from a decoded image as its documentation gives one."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(subject.model.parent))
    import cv2
    from ultralytics import YOLO

    network = YOLO(str(subject.model), task="classify")

    def label(content: bytes) -> int:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        [result] = network.predict(image, imgsz=subject.spec.size, device="cpu", verbose=False)
        return int(result.probs.top1)

    return label


SAME_PIXELS = "by hand (Pillow)"
FLOORS: Mapping[str, Load] = {SAME_PIXELS: floor_pillow, "by hand (OpenCV)": floor_opencv}
PEERS: Mapping[str, Load] = {
    "torchvision (Pillow)": torchvision_pillow,
    "torchvision (own decoder)": torchvision_own,
    "timm": timm_pillow,
    "OpenCV DNN": opencv_dnn,
    "Ultralytics": ultralytics_classify,
}


def open_all(
    loads: Mapping[str, Load], subject: Subject, threads: int, sample: bytes
) -> tuple[dict[str, Label], dict[str, str]]:
    """Those that run here, each tried once, and for the others why not."""
    running, absent = {}, {}
    for name, load in loads.items():
        try:
            label = load(subject, threads)
            label(sample)
        except Exception as error:  # peers fail in many ways, and a failure is a result to tell
            absent[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        else:
            running[name] = label
    return running, absent
