r"""Backward elimination of column groups from a least-squares solution: Optimal Brain Surgeon as in ZipLM (2302.04089).

:math:`W` minimises :math:`\operatorname{tr}(W H W^T) - 2 \operatorname{tr}(W C)`, so :math:`W = (H^{-1} C)^T`. Without
the columns of a group S the minimum is higher by

.. math:: \operatorname{tr}(W_S [(H^{-1})_{SS}]^{-1} W_S^T),

and the new solution and inverse, among the columns that are left, are

.. math:: W - W_S [(H^{-1})_{SS}]^{-1} (H^{-1})_{S,:}, \quad
    H^{-1} - (H^{-1})_{:,S} [(H^{-1})_{SS}]^{-1} (H^{-1})_{S,:}.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_LAZY = (
    64  # columns whose updates of the whole inverse are put off and then made at once, which is several times faster
)


class Elimination(NamedTuple):
    """Holds an order in which groups are dropped and what each of them costs.

    Attributes:
        order: Numbers of groups [groups], the first to be dropped first.
        errors: Rise of the minimum with the first k of them dropped [groups + 1], from 0.
    """

    order: Tensor
    errors: Tensor


class _State:
    """Holds the solution and the inverse among the groups that are left, up to updates that are still put off.

    Shapes: G groups of s columns each, n = G s, m outputs, p columns put off.
    """

    def __init__(self, inverse: Tensor, weight: Tensor, size: int) -> None:
        self.inverse, self.weight, self.size = inverse, weight.contiguous(), size
        self.alive = torch.arange(len(inverse) // size)
        self._forget()

    def _forget(self) -> None:
        n, m, s = len(self.inverse), len(self.weight), self.size
        # Rows are what goes: inverse - left^T left and weight - right^T left are the present ones.
        self.left, self.right = (self.inverse.new_empty(_LAZY + s, width) for width in (n, m))
        self.late = 0  # rows of these that are in use
        # [G, s, s]: the blocks on the diagonal of the present inverse, and W_S^T W_S of the present W.
        self.blocks = self.inverse.view((n // s, s) * 2).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
        columns = self.weight.view(m, -1, s)
        self.norms = torch.einsum("mgs,mgt->gst", columns, columns)
        self.gone = torch.zeros(n // s, dtype=torch.bool)

    def costs(self) -> Tensor:
        """Returns the rise of the minimum for each group that might go next [G]."""
        solved = self.norms / self.blocks if self.size == 1 else torch.linalg.solve(self.blocks, self.norms)
        traces = solved.diagonal(dim1=1, dim2=2).sum(1)
        return traces.clamp_min(0).masked_fill(self.gone, torch.inf)

    def drop(self, group: int) -> None:
        s, columns = self.size, slice(group * self.size, (group + 1) * self.size)
        left, right = self.left[: self.late], self.right[: self.late]
        root = torch.linalg.cholesky(self.blocks[group])  # [s, s]
        # u^T u is what goes from the inverse, v^T u what goes from W.
        u, v = self.left[self.late : self.late + s], self.right[self.late : self.late + s]
        u[:] = torch.linalg.solve_triangular(root, self.inverse[columns] - left[:, columns].T @ left, upper=False)
        v[:] = torch.linalg.solve_triangular(root, self.weight[:, columns].T - left[:, columns].T @ right, upper=False)
        product = v @ self.weight - (v @ right.T) @ left  # [s, n]: v times W, the present one
        parts, products = (rows.view(s, -1, s).permute(1, 2, 0) for rows in (u, product))  # [G, s, s]
        crossed = _times(parts, products)
        self.blocks -= _times(parts, parts)
        self.norms += _times(_times(parts, (v @ v.T)[None]), parts) - crossed - crossed.mT
        self.gone[group] = True
        self.blocks[group] = torch.eye(s, dtype=u.dtype)  # it is 0 now, which has no inverse
        self.late += s
        if self.late >= _LAZY:
            self._catch_up()

    def _catch_up(self) -> None:
        """Makes the updates that were put off, and forgets the columns that are gone."""
        rest = (~self.gone).nonzero().flatten()
        columns = (rest[:, None] * self.size + torch.arange(self.size)).flatten()
        left, right = self.left[: self.late, columns], self.right[: self.late]
        inverse = self.inverse.index_select(0, columns).index_select(1, columns)
        self.inverse = torch.addmm(inverse, left.T, left, alpha=-1)
        self.weight = torch.addmm(self.weight.index_select(1, columns), right.T, left, alpha=-1)
        self.alive = self.alive[rest]
        self._forget()


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Returns a times b transposed, block by block; of blocks of one entry, an order of magnitude faster than bmm."""
    return a * b if a.shape[1:] == (1, 1) else a @ b.mT


def eliminate(hessian: Tensor, weight: Tensor, size: int, steps: int | None = None) -> Elimination:
    """Drops groups of columns one by one, each time the one that raises the minimum least; ties in order of columns.

    Args:
        hessian: H [n, n], positive definite, in float64.
        weight: W [outputs, n], the solution with all columns.
        size: Columns per group; groups are neighbours.
        steps: Groups to drop; all by default.
    """
    groups = len(hessian) // size
    state = _State(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), weight, size)
    order, errors = [], [0.0]
    for _ in range(groups if steps is None else steps):
        costs = state.costs()
        group = int(costs.argmin())
        order.append(int(state.alive[group]))
        errors.append(errors[-1] + float(costs[group]))
        state.drop(group)
    return Elimination(torch.tensor(order, dtype=torch.long), torch.tensor(errors, dtype=torch.float64))
