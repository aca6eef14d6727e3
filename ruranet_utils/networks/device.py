"""What a network computes on, and how: device, threads, precision and seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ruranet_utils.profiles import Profile
from ruranet_utils.storage.machine import processor


def prepare(profile: Profile) -> torch.device:
    """Set torch's threads to the profile's and return its device; ``"auto"`` is the GPU if there is one."""
    torch.set_num_threads(profile.threads)
    if profile.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(profile.device)


@dataclass(frozen=True)
class Plan:
    """How a profile's networks are trained and applied on this machine.

    Attributes
    ----------
    device : torch.device
    name : str
        The GPU's name, or ``"cpu"``.
    precision : str
        Lightning's name for the training precision.
    workers : int
        Processes that run networks in parallel.
    """

    device: torch.device
    name: str
    precision: str
    workers: int


def plan(profile: Profile) -> Plan:
    """Choose device, precision and workers.

    The device ``"auto"`` is the GPU if there is one. The precision ``"auto"`` is mixed with bfloat16 on a GPU and on a
    processor that computes in it and is allowed to (not if the profile restricts it to AVX2); elsewhere it is float32.
    A GPU is used by one process, which fills it; processors by as many processes as the profile says.
    """
    device = prepare(profile)
    on_gpu = device.type == "cuda"
    able = {"avx512_bf16", "amx_bf16"} & {name for name, has in torch.cpu.get_capabilities().items() if has}
    fast = on_gpu or (able and torch.backends.cpu.get_cpu_capability() != "AVX2")
    chosen = {"float32": "32-true", "bfloat16": "bf16-mixed", "auto": "bf16-mixed" if fast else "32-true"}
    return Plan(
        device,
        torch.cuda.get_device_name(device) if on_gpu else device.type,
        chosen[profile.precision],
        1 if on_gpu else profile.workers,
    )


def machine_name(profile: Profile) -> str:
    """What a profile's networks run on: the name of the GPU or of the processor."""
    planned = plan(profile)
    return processor() if planned.device.type == "cpu" else planned.name


def device_settings(profile: Profile, with_precision: bool = False) -> dict[str, str | int]:
    """What a stored result of a network depends on besides the network: ``threads``; the ``device`` that ``"auto"``
    stands for, by name if it is a GPU; and, if asked for, the ``precision``."""
    planned = plan(profile)
    settings = {"threads": profile.threads, "device": planned.name}
    return {**settings, "precision": planned.precision} if with_precision else settings


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside a block and leave its global state unchanged afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
