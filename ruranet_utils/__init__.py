"""RURANET++ reproduced: the thin package that the numbered notebooks call."""

import ctypes
import os
import sys

# The instruction set decides the order in which sums are rounded, so it is fixed before torch and numpy load:
# the same bytes on every x86 machine. Set the variables yourself to lift this.
for _name, _value in {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}.items():
    os.environ.setdefault(_name, _value)

# glibc hands the memory of every large tensor back at once and fetches it again page by page, which costs a
# network on the CPU up to half of its time. Keep blocks below 128 MiB (M_MMAP_THRESHOLD), up to 1 GiB of them
# (M_TRIM_THRESHOLD).
if sys.platform == "linux" and hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    _libc.mallopt(-3, 2**27)
    _libc.mallopt(-1, 2**30)

__version__ = "0.1.0"
