"""RURANET++ reproduced: the thin package that the numbered notebooks call."""

import ctypes
import gc
import os
import sys

# The instruction set decides the order in which sums are rounded, so it is fixed before torch and numpy load:
# the same bytes on every x86 machine. RURANET_INSTRUCTIONS=native lifts this (`make reproduce` sets it for profiles
# that train for hours: twice as fast on processors that compute in bfloat16), as does setting the variables yourself.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
if os.environ.get("RURANET_INSTRUCTIONS") != "native":
    for _name, _value in AVX2.items():
        os.environ.setdefault(_name, _value)

# glibc hands the memory of every large tensor back at once and fetches it again page by page, which costs a
# network on the CPU up to half of its time. Keep blocks below 128 MiB (M_MMAP_THRESHOLD), up to 1 GiB of them
# (M_TRIM_THRESHOLD).
_glibc = ctypes.CDLL(None) if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt") else None
if _glibc:
    _glibc.mallopt(-3, 2**27)
    _glibc.mallopt(-1, 2**30)


def release_memory() -> None:
    """Give back to the system what a finished step has left: unreachable objects and kept blocks."""
    gc.collect()
    if _glibc:
        _glibc.malloc_trim(0)


__version__ = "0.1.0"
