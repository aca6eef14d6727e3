"""RURANET++ reproduced: the thin package that the numbered notebooks call."""

import os

# The instruction set decides the order in which sums are rounded, so it is fixed before torch and numpy load:
# the same bytes on every x86 machine. Set the variables yourself to lift this.
for _name, _value in {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}.items():
    os.environ.setdefault(_name, _value)

__version__ = "0.1.0"
