"""Example tools for agents: functions whose result depends only on their arguments."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def calculator(expression: str) -> str:
    """Compute the value of an arithmetic expression.

    Args:
        expression: Numbers, parentheses and the operators + - * / // % **, such as `(12 - 3) * 2.5`.
    """
    value = _value(ast.parse(expression.replace(",", ""), mode="eval").body)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number: float = node.value  # type: ignore[assignment]
        return number
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        value: float = OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
        return value
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        signed: float = OPERATIONS[type(node.op)](_value(node.operand))
        return signed
    raise ValueError("only numbers, parentheses and the operators + - * / // % ** are known")
