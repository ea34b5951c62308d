"""Integers of two and three limbs for numba: the arithmetic of cpp/include/ami/exact_moments.hpp, spelled for LLVM.

A limb is an int64 whose bits count as unsigned; the last of two carries their sign. Sums and products
wrap. LLVM has integers of any width and knows the machine's instructions for them, Python's compiled subset does not.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from numba import types
from numba.extending import intrinsic

__all__ = ["product_less", "replace_far", "replace_near", "spread", "subtract_pair"]

ir: Any = import_module("llvmlite.ir")
_LIMB = ir.IntType(64)
_PAIR = ir.IntType(128)
_WIDE = ir.IntType(192)


def _joined(builder: Any, limbs: Any, kind: Any) -> Any:
    """Return limbs, least first, as one integer."""
    value = ir.Constant(kind, 0)
    for place, limb in enumerate(limbs):
        value = builder.or_(value, builder.shl(builder.zext(limb, kind), ir.Constant(kind, 64 * place)))
    return value


def _split(builder: Any, value: Any) -> list[Any]:
    return [
        builder.trunc(builder.lshr(value, ir.Constant(value.type, 64 * place)), _LIMB)
        for place in range(value.type.width // 64)
    ]


def _of_limbs(inputs: int, outputs: int, build: Callable[[Any, Any], list[Any]]) -> tuple[Any, Any]:
    """Return what numba wants of a function of `inputs` limbs that gives `outputs` of them."""
    signature = types.UniTuple(types.int64, outputs)(*[types.int64] * inputs)

    def generate(context: Any, builder: Any, signature: Any, limbs: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, build(builder, limbs))

    return signature, generate


def _limbs_in_llvm(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's `intrinsic`: whoever calls the function leaves out its first argument."""
    return cast(Callable[..., Any], intrinsic(function))


@_limbs_in_llvm
def subtract_pair(context: Any, a0: Any, a1: Any, b0: Any, b1: Any) -> Any:
    """Return a − b, of two limbs each."""

    def build(builder: Any, limbs: Any) -> list[Any]:
        return _split(builder, builder.sub(_joined(builder, limbs[:2], _PAIR), _joined(builder, limbs[2:], _PAIR)))

    return _of_limbs(4, 2, build)


@_limbs_in_llvm
def replace_near(context: Any, s0: Any, s1: Any, q0: Any, q1: Any, q2: Any, joins: Any, leaves: Any) -> Any:
    """Return a sum of two limbs and one of squares of three, in which a sample took another one's place.

    Sum and difference of the two must fit a limb: a² - b² = (a - b)(a + b) is one product.
    """

    def build(builder: Any, limbs: Any) -> list[Any]:
        change = builder.sext(builder.sub(limbs[5], limbs[6]), _PAIR)
        both = builder.sext(builder.add(limbs[5], limbs[6]), _PAIR)
        total = builder.add(_joined(builder, limbs[:2], _PAIR), change)
        square = builder.sext(builder.mul(change, both), _WIDE)
        return _split(builder, total) + _split(builder, builder.add(_joined(builder, limbs[2:5], _WIDE), square))

    return _of_limbs(7, 5, build)


@_limbs_in_llvm
def replace_far(context: Any, s0: Any, s1: Any, q0: Any, q1: Any, q2: Any, j0: Any, j1: Any, l0: Any, l1: Any) -> Any:
    """Do what `replace_near` does, with samples of two limbs."""

    def build(builder: Any, limbs: Any) -> list[Any]:
        joins = builder.sext(_joined(builder, limbs[5:7], _PAIR), _WIDE)
        leaves = builder.sext(_joined(builder, limbs[7:], _PAIR), _WIDE)
        change = builder.sub(joins, leaves)
        total = builder.add(_joined(builder, limbs[:2], _PAIR), builder.trunc(change, _PAIR))
        square = builder.mul(change, builder.add(joins, leaves))
        return _split(builder, total) + _split(builder, builder.add(_joined(builder, limbs[2:5], _WIDE), square))

    return _of_limbs(9, 5, build)


@_limbs_in_llvm
def spread(context: Any, s0: Any, s1: Any, q0: Any, q1: Any, q2: Any, count: Any) -> Any:
    """Return count · q − s², of three limbs."""

    def build(builder: Any, limbs: Any) -> list[Any]:
        total = builder.sext(_joined(builder, limbs[:2], _PAIR), _WIDE)
        squares = _joined(builder, limbs[2:5], _WIDE)
        scaled = builder.mul(squares, builder.zext(limbs[5], _WIDE))
        return _split(builder, builder.sub(scaled, builder.mul(total, total)))

    return _of_limbs(6, 3, build)


@_limbs_in_llvm
def product_less(context: Any, u0: Any, u1: Any, count: Any, s0: Any, s1: Any) -> Any:
    """Return count · u − s, of two limbs."""

    def build(builder: Any, limbs: Any) -> list[Any]:
        product = builder.mul(_joined(builder, limbs[:2], _PAIR), builder.zext(limbs[2], _PAIR))
        return _split(builder, builder.sub(product, _joined(builder, limbs[3:], _PAIR)))

    return _of_limbs(5, 2, build)
