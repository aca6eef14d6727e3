"""What the shortcuts of the merge cost and gain on real photographs: scaled decoding, hashes, shrunken masks."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from measure import save
from PIL import Image
from skimage.measure import label

from ruranet_utils.data.decoding import perceptual_hash
from ruranet_utils.data.duplicates import NEAR_BITS
from ruranet_utils.data.field import MASK_COVERAGE
from ruranet_utils.data.masks import read_mask
from ruranet_utils.data.reading import read_image
from ruranet_utils.data.sources import idrid, srahim
from ruranet_utils.profiles import DISPLAY, LESIONS
from ruranet_utils.storage import paths

SIZE_PX = 512
COPIES = [(200, 50), (350, 95), (500, 70), (900, 60)]  # width in px, JPEG quality


def main() -> None:
    """Measure on IDRiD and SRahim, if they are available."""
    root = paths.data_root()
    if not (root / "idrid").is_dir() or not (root / "srahim").is_dir():
        print("IDRiD and SRahim not found (RURANET_DATA_ROOT): decoding, hashes and masks are not measured")
        return
    photographs, graded = idrid.records(root / "idrid", "A"), srahim.records(root / "srahim")
    save(scaled_decoding(photographs), "scaled_decoding", "JPEG decoded at reduced scale, IDRiD", digits=3)
    near = near_duplicates([*photographs, *(record for record in graded if not record.disputed_by)])
    save(near, "near_duplicates", f"Bits, of 256, in which perceptual hashes differ; near means at most {NEAR_BITS}")
    save(lost_lesions(photographs), "lost_lesions", "Lesions and their area after scaling the masks, IDRiD", digits=3)


def scaled_decoding(records: list) -> pd.DataFrame:
    """Seconds for each way of reading, one thread; how far pixels are from a full decode; relative cost of cropping."""
    full_s = scaled_s = cropped_s = 0.0
    differences = []
    for record in records:
        start = time.perf_counter()
        scaled, _ = read_image(record.image_path, SIZE_PX, crop_field=False)
        scaled_s += time.perf_counter() - start
        start = time.perf_counter()
        read_image(record.image_path, SIZE_PX)
        cropped_s += time.perf_counter() - start
        start = time.perf_counter()
        with Image.open(record.image_path) as image:
            full = np.asarray(image.convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))
        full_s += time.perf_counter() - start
        differences.append(np.abs(full.transpose(2, 0, 1).astype(int) - scaled))
    difference = np.stack(differences)
    row = {"photographs": len(records), "full_s": full_s, "scaled_s": scaled_s, "times faster": full_s / scaled_s}
    row |= {"cropped_s": cropped_s, "cropped / scaled": cropped_s / scaled_s}
    row |= {"mean difference (of 255)": difference.mean(), "99.9 % below": np.quantile(difference, 0.999)}
    return pd.DataFrame([row | {"largest": int(difference.max())}])


def near_duplicates(records: list) -> pd.DataFrame:
    """Distances between photographs and their own copies, and between different photographs."""
    hashed = Parallel(-1)(delayed(_hashes)(record.image_path) for record in records)
    own = np.array([bits[0] for bits in hashed], dtype=np.float32) * 2 - 1
    between = (own.shape[1] - own @ own.T) / 2
    to_copies = [int((bits[0] != copy).sum()) for bits in hashed for copy in bits[1:]]
    pairs = {"photograph and its copy": np.array(to_copies), "two photographs": between[np.triu_indices(len(own), 1)]}
    return pd.DataFrame(
        [
            {"pair": name, "n": len(bits), "smallest": int(bits.min()), "median": int(np.median(bits))}
            | {"largest": int(bits.max()), "near": int((bits <= NEAR_BITS).sum())}
            for name, bits in pairs.items()
        ]
    )


def _hashes(path) -> list[np.ndarray]:
    """Of a photograph, then of its rescaled and recompressed copies."""
    hashes = [perceptual_hash(read_image(path, SIZE_PX)[0])]
    with Image.open(path) as image, TemporaryDirectory() as folder:
        for width, quality in COPIES:
            copy = Path(folder, f"{width}.jpg")
            image.convert("RGB").resize((width, width * image.height // image.width)).save(copy, quality=quality)
            hashes.append(perceptual_hash(read_image(copy, SIZE_PX)[0]))
    return hashes


def lost_lesions(records: list) -> pd.DataFrame:
    """Connected lesions with no pixel left, and the relative area, for two thresholds of coverage."""
    jobs = [(lesion, path) for record in records for lesion, path in record.mask_paths.items() if lesion in LESIONS]
    counts = Parallel(-1)(delayed(_count)(path) for _, path in jobs)
    table = (
        pd.DataFrame(counts).assign(lesion=[lesion for lesion, _ in jobs]).groupby("lesion").sum().loc[list(LESIONS)]
    )
    rows = {"lesion": [idrid.EDEMA_NOTE if name == "edema" else DISPLAY[name] for name in LESIONS]}
    rows["lesions"] = table["lesions"].to_numpy()
    for coverage in (MASK_COVERAGE, 0.5):
        rows[f"lost at {coverage}"] = table[f"lost {coverage}"].to_numpy()
        rows[f"area at {coverage}"] = (table[f"area {coverage}"] / table["area"]).to_numpy()
    return pd.DataFrame(rows)


def _count(path) -> dict[str, float]:
    mask = read_mask(path)
    numbered, n_lesions = label(mask, return_num=True)
    scaled = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX))
    row = {"lesions": n_lesions, "area": mask.mean()}
    y, x = (np.arange(side) * SIZE_PX // side for side in mask.shape)
    for coverage in (MASK_COVERAGE, 0.5):
        small = scaled >= coverage * 255
        kept = np.unique(numbered[mask & small[np.ix_(y, x)]])
        row |= {f"lost {coverage}": n_lesions - len(kept), f"area {coverage}": small.mean()}
    return row


if __name__ == "__main__":
    main()
