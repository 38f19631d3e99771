"""A fine-tuning loop as one would write it by hand, with torchvision's reference settings: what ours must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from edgetl.data.index import DataIndex, Sample
from edgetl.models import backbones
from edgetl.records.scores import Evaluation
from edgetl.tasks.classification.scores import evaluate

LR = 0.1 / 256
"""An image's share of the rate: torchvision's reference script takes 0.1 at 256 images per step."""


def fine_tune(
    backbone: str, index: DataIndex, *, size: int, epochs: int, batch_size: int, seed: int
) -> Evaluation:
    """Train on the training split and score the last epoch on the test split.

    SGD with momentum 0.9 and weight decay 1e-4 under a cosine, random resized crop and flip; evaluation resizes the
    shorter side to 8/7 of the input and crops its centre.
    """
    torch.manual_seed(seed)
    mean, std, _ = backbones.default_preprocess(backbone)
    tail = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    learn = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *tail])
    look = v2.Compose([v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size), *tail])
    model = backbones.create(backbone, len(index.labels), seed=seed).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=LR * batch_size, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    train, test = index.split("train"), index.split("test")
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(train)).split(batch_size):
            images = _batch([train[row] for row in rows.tolist()], learn)
            labels = torch.tensor([train[row].label for row in rows.tolist()])
            loss = F.cross_entropy(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        logits = [model(_batch(test[at : at + 64], look)).numpy() for at in range(0, len(test), 64)]
    return evaluate(np.array([s.label for s in test]), np.concatenate(logits), index.labels)


def _batch(samples: Sequence[Sample], transform: v2.Compose) -> torch.Tensor:
    return torch.stack([transform(_open(sample.path)) for sample in samples]).to(
        memory_format=torch.channels_last
    )


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
