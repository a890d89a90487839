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
        self.inverse, self.weight, self.size = inverse, weight, size
        self.alive = torch.arange(len(inverse) // size)
        self._forget()

    def _forget(self) -> None:
        self.left = self.inverse.new_empty(len(self.inverse), 0)  # [n, p]: inverse - left left^T is the present one
        self.right = self.weight.new_empty(len(self.weight), 0)  # [m, p]: weight - right left^T is the present one
        # [G, s, s]: the present inverse's blocks on the diagonal, copied.
        shape = (len(self.inverse) // self.size, self.size) * 2
        self.blocks = self.inverse.view(shape).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
        columns = self.weight.view(len(self.weight), -1, self.size)
        self.norms = torch.einsum("mgs,mgt->gst", columns, columns)  # [G, s, s]: W_S^T W_S of the present W
        self.gone = torch.zeros(len(self.blocks), dtype=torch.bool)

    def costs(self) -> Tensor:
        """Returns the rise of the minimum for each group that might go next [G]."""
        # Solving many systems of one equation takes ten times as long as dividing.
        solved = self.norms / self.blocks if self.size == 1 else torch.linalg.solve(self.blocks, self.norms)
        traces = solved.diagonal(dim1=1, dim2=2).sum(1)
        return traces.clamp_min(0).masked_fill(self.gone, torch.inf)

    def drop(self, group: int) -> None:
        s, columns = self.size, slice(group * self.size, (group + 1) * self.size)
        root = torch.linalg.cholesky(self.blocks[group])  # [s, s]
        # u u^T is what goes from the inverse, v u^T what goes from W.
        present = self.inverse[:, columns] - self.left @ self.left[columns].T
        w = self.weight[:, columns] - self.right @ self.left[columns].T
        u, v = (torch.linalg.solve_triangular(root, part.T, upper=False).T for part in (present, w))
        product = (self.weight.T @ v - self.left @ (self.right.T @ v)).view(-1, s, s)  # W_T^T v for every group T
        parts = u.view(-1, s, s)
        self.blocks -= parts @ parts.mT
        crossed = product @ parts.mT
        self.norms += parts @ (v.T @ v) @ parts.mT - crossed - crossed.mT
        self.gone[group] = True
        self.blocks[self.gone] = torch.eye(s, dtype=present.dtype)  # theirs are 0 now, which has no inverse
        self.left, self.right = torch.cat([self.left, u], 1), torch.cat([self.right, v], 1)
        if self.left.shape[1] >= _LAZY:
            self._catch_up()

    def _catch_up(self) -> None:
        """Makes the updates that were put off, and forgets the columns that are gone."""
        rest = (~self.gone).nonzero().flatten()
        columns = (rest[:, None] * self.size + torch.arange(self.size)).flatten()
        left = self.left[columns]
        self.inverse = torch.addmm(
            self.inverse.index_select(0, columns).index_select(1, columns), left, left.T, alpha=-1
        )
        self.weight = torch.addmm(self.weight.index_select(1, columns), self.right, left.T, alpha=-1)
        self.alive = self.alive[rest]
        self._forget()


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
