"""What a network computes on and how: device, threads, precision and seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ruranet_utils.profiles import Profile


def prepare(profile: Profile) -> torch.device:
    """Set torch's threads to those of the profile and return its device; ``"auto"`` is the GPU where there is one."""
    torch.set_num_threads(profile.threads)
    if profile.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(profile.device)


def precision(profile: Profile) -> str:
    """Lightning's name of the precision to train in.

    ``"auto"`` is mixed with bfloat16 on a GPU and on a processor that computes in it and may (it may not where the
    profile holds it to AVX2); elsewhere it is float32.
    """
    if profile.precision != "auto":
        return {"float32": "32-true", "bfloat16": "bf16-mixed"}[profile.precision]
    able = {"avx512_bf16", "amx_bf16"} & {name for name, has in torch.cpu.get_capabilities().items() if has}
    fast = prepare(profile).type == "cuda" or (able and torch.backends.cpu.get_cpu_capability() != "AVX2")
    return "bf16-mixed" if fast else "32-true"


def device_settings(profile: Profile, trains: bool = False) -> dict[str, str | int]:
    """What a stored result of a network depends on besides the network: ``threads``, the ``device`` that ``"auto"``
    stands for, by name if it is a GPU, and where it ``trains`` the ``precision``."""
    device = prepare(profile)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    settings = {"threads": profile.threads, "device": name}
    return {**settings, "precision": precision(profile)} if trains else settings


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside a block and leave its global state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
