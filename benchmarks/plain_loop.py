"""What most code does: decode and resize every image in every epoch, batches of 4, float32, two loading workers.

Run in a process that does not import the package, so that it finds torch as a user would:
python plain_loop.py LIST SIDE EPOCHS WEIGHTS, where LIST holds a line "image<TAB>mask" per photograph. Prints
images per second, without the first epoch.
"""

import sys
import time
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import normalize, to_tensor


class Photographs(Dataset):
    def __init__(self, pairs: list[list[str]], side_px: int):
        self.pairs, self.size = pairs, (side_px, side_px)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = (Image.open(path) for path in self.pairs[index])
        image = to_tensor(image.convert("RGB").resize(self.size, Image.Resampling.BILINEAR))
        mask = np.asarray(mask.convert("L").resize(self.size, Image.Resampling.NEAREST)) > 0
        return normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), torch.tensor(mask[None]).float()


def main(listed: str, side_px: int, epochs: int, weights: str) -> None:
    pairs = [line.split("\t") for line in Path(listed).read_text().splitlines()]
    loader = DataLoader(Photographs(pairs, side_px), batch_size=4, shuffle=True, num_workers=2, drop_last=True)
    model = smp.Unet("mobilenet_v2", encoder_weights=None, decoder_attention_type="scse")
    model.encoder.load_state_dict(torch.load(weights, weights_only=True))
    dice, focal = smp.losses.DiceLoss("binary"), smp.losses.FocalLoss("binary")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    times_s = []
    for _ in range(epochs):
        start = time.perf_counter()
        for images, masks in loader:
            logits = model(images)
            loss = dice(logits, masks) + focal(logits, masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        times_s.append(time.perf_counter() - start)
    print((epochs - 1) * len(loader) * 4 / sum(times_s[1:]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
