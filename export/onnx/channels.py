"""Products in whole numbers: 8 bits and one scale for a row of weights, 14 bits for the input.

Weights in blocks (blocks.py) are unpacked and scaled for every row of the input, so that on few
cores four tokens cost 1.6 times one. Here the kernel adds whole numbers up, and what costs is to
read the weights: four tokens cost 1.1 times one, or 1.4 with AVX-512 VNNI alone. A row's product is
the same in whatever company.

An input x [1, T, n_in] is cut in two: high = round(63 x / max|x|) and 128 times what is left, each
between -64 and 64. Both are rows of one product, so 7 bits stand beside 8: two neighbouring
products fit 16 bits, which processors without VNNI add them up in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

from ..quant.blocks import in_parts
from ..read.checkpoint import Tensor
from .file import OnnxFile

HIGHEST, PARTS = 63, 128  # codes of a high part, and low ones to a step of it
ZERO = 64  # the code of 0
WIDEST = 127  # code of a row's largest weight
LEAST = 1e-20  # of an input's or a row's largest number, below which all count as 0


class Channels:
    """Writes the products of a graph whose other numbers are float32."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.cut: dict[str, tuple[str, str]] = {}  # inputs, and their two parts with the steps
        self.highest = file.weight("channels.highest", np.array(HIGHEST, np.float32))
        self.parts = file.weight("channels.parts", np.array(PARTS, np.float32))
        self.least = file.weight("channels.least", np.array(LEAST, np.float32))
        self.one = file.weight("channels.one", np.array(1, np.float32))
        self.zero = file.weight("channels.zero", np.array(ZERO, np.uint8))

    def product(self, name: str, matrices: Mapping[str, Tensor], x: str) -> str:
        """x [1, T, n_in] times the rows [n_out, n_in] of all matrices."""
        codes_of_x, per_one = self.in_two(x)
        codes, scales = rounded(list(matrices.values()))
        node = self.file.node
        inputs = [
            codes_of_x,
            self.file.weight(f"{name}.codes", codes),
            self.one,
            self.file.weight(f"{name}.scales", scales),
            self.zero,
        ]
        products = node("com.microsoft:MatMulIntegerToFloat", inputs, f"{name}.products")
        high, low = f"{name}.high", f"{name}.low"
        node("Split", [products], [high, low], axis=1, num_outputs=2)
        smaller = node("Div", [low, self.parts], f"{name}.smaller")
        return node("Div", [node("Add", [high, smaller], f"{name}.sum"), per_one], name)

    def in_two(self, x: str) -> tuple[str, str]:
        """The parts [1, 2 T, n_in] of x, high ones first, and codes per unit [1, T, 1]."""
        if x not in self.cut:
            node = self.file.node
            size = node("Abs", [x], f"{x}.size")
            axis = self.file.weight(f"{x}.axis", np.array([2]))
            most = node("ReduceMax", [size, axis], f"{x}.most", keepdims=1)
            most = node("Max", [most, self.least], f"{x}.range")
            per_one = node("Div", [self.highest, most], f"{x}.per_one")
            scaled = node("Mul", [x, per_one], f"{x}.scaled")
            high = node("Round", [scaled], f"{x}.high")
            left = node("Sub", [scaled, high], f"{x}.left")
            low = node("Mul", [left, self.parts], f"{x}.low")
            rows = node("Concat", [high, low], f"{x}.rows", axis=1)
            self.cut[x] = node("QuantizeLinear", [rows, self.one, self.zero], f"{x}.codes"), per_one
        return self.cut[x]


def rounded(matrices: list[Tensor]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes [n_in, n_out] of all rows, and a scale for each. Raises: ModelFileError."""
    n_out = sum(matrix.shape[0] for matrix in matrices)
    codes = np.empty((matrices[0].shape[1], n_out), np.int8)
    scales = np.empty(n_out, np.float32)
    at = 0
    for matrix in matrices:
        for part in in_parts(matrix.shape[0]):
            rows = matrix.rows(part).floats()
            here = slice(at, at + len(rows))
            most = np.abs(rows).max(axis=1)
            if not np.isfinite(most).all():
                raise ModelFileError("a weight is no number: expected finite ones; fetch it again")
            scales[here] = np.where(most < LEAST, 1, most) / WIDEST
            codes[:, here] = np.rint(rows / scales[here, None]).T
            at += len(rows)
    return codes, scales
