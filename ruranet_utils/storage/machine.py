"""What a process uses of its machine: instructions, threads, memory. Set on request, never on import.

``python -m ruranet_utils.storage.machine COMMAND ...`` runs a command with the instructions fixed before its first
import: Jupyter, whose kernels inherit them, or a dask worker.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

# The instruction set decides the order in which sums are rounded. These variables make it the same on every x86
# machine, and so the bytes of the results. MKL has its AVX2 branch only on Intel processors and falls back to
# COMPATIBLE on AMD, whatever is requested; the convolutions, which dominate the run time, are oneDNN's. No variable
# governs MKL's vector functions: no result may depend on its square root, which torch uses for large arrays.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
}
READ_BY_NUMPY = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES")  # when it is loaded, and never again
FIXED = "Haswell, AVX2"  # what `instructions` returns then
INSTRUCTIONS = ("avx2", "native")


def prepare_process(instructions: str = "avx2", computes: bool = True) -> None:
    """Choose instructions and memory management for this process and those it starts.

    ``start``, the command line and the tests call it. Torch and oneDNN read the variables when they first compute,
    numpy and its OpenBLAS when they are loaded; after that they are left alone, here and in worker processes, which
    must not differ.

    Parameters
    ----------
    instructions : {"avx2", "native"}
        ``"avx2"``: those that every x86 processor has, so that results are the same bytes on all of them.
        ``"native"``: all that this processor has; twice as fast on one that computes in bfloat16. The variable
        ``RURANET_INSTRUCTIONS`` overrides it, and so does setting a variable of ``AVX2`` by hand.
    computes : bool
        ``False`` if only processes started from here compute: numpy is then fixed for them as well, whether or not it
        is loaded here.

    Raises
    ------
    ValueError
        For any other value.
    """
    instructions = os.environ.get("RURANET_INSTRUCTIONS") or instructions
    if instructions not in INSTRUCTIONS:
        raise ValueError(f"RURANET_INSTRUCTIONS must be 'avx2' or 'native', got {instructions!r}")
    for name, value in AVX2.items():
        if instructions == "native" and os.environ.get(name) == value:
            del os.environ[name]
        elif instructions == "avx2" and not (computes and name in READ_BY_NUMPY and "numpy" in sys.modules):
            os.environ.setdefault(name, value)
    keep_memory()


def keep_memory() -> None:
    """Let glibc keep the memory of large tensors.

    By default it returns each at once and fetches it again page by page, which takes a network on the CPU up to half
    its run time. Blocks below 128 MiB (M_MMAP_THRESHOLD) are kept, up to 1 GiB of them (M_TRIM_THRESHOLD).
    """
    glibc = _glibc()
    if glibc:
        glibc.mallopt(-3, 2**27)
        glibc.mallopt(-1, 2**30)


def release_memory() -> None:
    """Return to the system what a finished step leaves behind: unreachable objects and kept blocks."""
    gc.collect()
    glibc = _glibc()
    if glibc:
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt") else None


@cache
def processor() -> str:
    """The processor's name according to Linux, or else its type."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


@cache
def instructions(with_torch: bool = True) -> str:
    """What this process computes with, such as ``"Haswell, AVX2"``: the kernels of its BLAS, then torch's.

    Parameters
    ----------
    with_torch : bool
        If false, torch is not loaded.
    """
    import scipy.linalg  # noqa: F401  has a BLAS of its own, which counts whether it is loaded yet or not
    from threadpoolctl import threadpool_info

    kinds = {str(library.get("architecture")) for library in threadpool_info() if library["user_api"] == "blas"}
    found = sorted(kinds)
    if with_torch:
        import torch

        found.append(torch.backends.cpu.get_cpu_capability())
    return ", ".join(found)


if __name__ == "__main__":
    prepare_process()
    os.execvp(sys.argv[1], sys.argv[1:])  # signals reach the command itself
