"""Masks: which weights are kept, as one bit each."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainflat.anatomy.params import named_weights, prunable
from trainflat.core.errors import DamagedFile, InputError, ZerosRevived
from trainflat.core.files import MOVE, load_tensors, save_tensors
from trainflat.core.formatting import plural
from trainflat.core.untrusted import parse_json, validated
from trainflat.pruning.enforcer import MaskEnforcer
from trainflat.records.run import MatrixZeros

_FORMAT = "trainflat-masks-1"
Shape = tuple[int, ...]
_SHAPES = dict[str, Shape]


class Masks(Mapping[str, Tensor]):
    """Boolean masks by the name of their parameter, ``True`` = kept.

    Immutable. Stored as one bit per entry; each access unpacks a new tensor on the CPU.

    Args:
        bits: Boolean tensors by name.

    Raises:
        InputError: for tensors that are not boolean.

    Example:
        >>> masks = Masks({"weight": torch.tensor([[True, False], [False, False]])})
        >>> masks.entries, masks.zeros, masks.sparsity
        (4, 3, 0.75)
        >>> layer = nn.Linear(2, 2)
        >>> masks.apply_(layer)
        >>> int((layer.weight != 0).sum())
        1
    """

    def __init__(self, bits: Mapping[str, Tensor]) -> None:
        packed = {}
        for name, mask in bits.items():
            if mask.dtype != torch.bool:
                raise InputError(f"the mask of {name} has dtype {mask.dtype}. Give a boolean tensor, True = kept.")
            packed[name] = np.packbits(mask.detach().cpu().numpy())
        self._set(packed, {name: tuple(mask.shape) for name, mask in bits.items()})

    @classmethod
    def of_packed(cls, packed: Mapping[str, NDArray[np.uint8]], shapes: Mapping[str, Shape]) -> Self:
        """Takes bits as ``numpy.packbits`` orders them, 1 = kept, unused bits of the last byte 0; not copied."""
        masks = cls.__new__(cls)
        masks._set(packed, shapes)
        return masks

    @classmethod
    def ones(cls, weights: nn.Module | Mapping[str, Tensor]) -> Self:
        """Makes masks that keep everything: of a model's prunable weights, or of tensors by name."""
        named = prunable(weights) if isinstance(weights, nn.Module) else weights
        return cls({name: torch.ones(w.shape, dtype=torch.bool) for name, w in named.items()})

    def _set(self, packed: Mapping[str, NDArray[np.uint8]], shapes: Mapping[str, Shape]) -> None:
        self._packed, self._shapes = dict(packed), dict(shapes)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.unpacked(name).view(np.bool_)).view(self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"Masks({len(self)} tensors, {self.zeros} of {plural(self.entries, 'entry', 'entries')} zero)"

    def unpacked(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Returns entries ``start`` to ``stop`` of a mask in index order, as 0 and 1; ``start`` is a multiple of 8."""
        stop = prod(self._shapes[name]) if stop is None else stop
        return np.unpackbits(self._packed[name][start // 8 : (stop + 7) // 8], count=stop - start)

    @property
    def packed(self) -> dict[str, NDArray[np.uint8]]:
        """The bits as ``of_packed`` takes them."""
        return dict(self._packed)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every mask."""
        return dict(self._shapes)

    @property
    def entries(self) -> int:
        """How many weights the masks cover."""
        return sum(map(prod, self._shapes.values()))

    @property
    def zeros(self) -> int:
        """How many of them are pruned."""
        return sum(matrix.zeros for matrix in self.statistics())

    @property
    def sparsity(self) -> float:
        """Share of them that is pruned; 0 for masks without entries."""
        return self.zeros / max(self.entries, 1)

    def statistics(self) -> list[MatrixZeros]:
        """Counts entries and zeros of every tensor, in order."""
        kept = {name: int(np.bitwise_count(bits).sum(dtype=np.int64)) for name, bits in self._packed.items()}
        return [
            MatrixZeros(name=name, entries=prod(shape), zeros=prod(shape) - kept[name])
            for name, shape in self._shapes.items()
        ]

    @property
    def sha256(self) -> str:
        """Hash over names, shapes and bits, as 64 hexadecimal digits; the order of the names does not matter."""
        digest = hashlib.sha256(json.dumps(self._shapes, sort_keys=True).encode())
        for name in sorted(self._packed):
            digest.update(self._packed[name].tobytes())
        return digest.hexdigest()

    def issubset(self, other: "Masks") -> bool:
        """Returns whether every weight that is kept here is kept in ``other``.

        Raises:
            InputError: the two are not of the same tensors.
        """
        check_same(self._shapes, other.shapes, "the other masks")
        return not any(np.any(bits & ~other._packed[name]) for name, bits in self._packed.items())

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Sets the pruned weights to exactly 0, in place, whatever they were.

        Raises:
            InputError: the model has no such parameter, or one of another shape.
        """
        for name, weight in self.parameters(model).items():
            weight.masked_fill_(~self[name].to(weight.device), 0.0)

    @torch.no_grad()
    def check(self, model: nn.Module) -> None:
        """Raises unless every pruned weight of the model is zero.

        Raises:
            ZerosRevived: one is not, or is NaN; names the first such matrix and how many.
            InputError: the model has no such parameter, or one of another shape.
        """
        for name, weight in self.parameters(model).items():
            # as bits, like the mask: an eighth of the memory, and no unpacking
            nonzero = np.packbits((weight.detach() != 0).cpu().numpy())
            revived = int(np.bitwise_count(nonzero & ~self._packed[name]).sum(dtype=np.int64))
            if revived:
                zeros = next(m.zeros for m in self.statistics() if m.name == name)
                raise ZerosRevived(f"{revived} of {zeros} pruned weights of {name} are not zero{_cause(weight)}")

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Finds the model's parameters that the masks are for.

        Raises:
            InputError: the model has no such parameter, or one of another shape.
        """
        known = named_weights(model, every_name=True)
        found = {name: tuple(known[name].shape) for name in self if name in known}
        check_same(self._shapes, found, "the model")
        return {name: known[name] for name in self}

    @contextmanager
    def tried(self, model: nn.Module) -> Iterator[None]:
        """Prunes the model's weights inside the block; afterwards, even on error, they are what they were."""
        weights = self.parameters(model)
        origin = {name: w.detach().clone() for name, w in weights.items()}
        try:
            self.apply_(model)
            yield
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(origin[name])

    def hold(self, model: nn.Module) -> MaskEnforcer:
        """Returns the masks in the form that costs least while training."""
        return MaskEnforcer(self.parameters(model), self)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file of packed bits, atomically.

        Raises:
            InputError: it cannot be written.
        """
        metadata = {"format": _FORMAT, "shapes": json.dumps(self._shapes), "sha256": self.sha256}
        save_tensors(Path(path), {name: torch.from_numpy(bits) for name, bits in self._packed.items()}, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises:
            DamagedFile: it is missing, not a file of masks, or not what was written.
        """
        tensors, metadata = load_tensors(Path(path))
        fault = f"{path} does not hold the masks that were written there"
        if metadata.get("format") not in (None, _FORMAT):
            fault += f", or a newer trainflat did: it has format {metadata['format']!r:.40}, not {_FORMAT!r}"
        try:
            shapes: dict[str, Shape] = validated(parse_json(metadata["shapes"]), _SHAPES, fault, MOVE)
            packed = {name: _bits(tensors[name], shape) for name, shape in shapes.items()}
        except (KeyError, ValueError) as error:
            raise DamagedFile(f"{fault}. {MOVE}") from error
        masks = cls.of_packed(packed, shapes)
        whole = len(tensors) == len(shapes) and metadata.get("sha256") == masks.sha256
        if not whole or metadata.get("format") != _FORMAT:
            raise DamagedFile(f"{fault}. {MOVE}")
        return masks


def _bits(stored: Tensor, shape: Shape) -> NDArray[np.uint8]:
    """Returns the stored bits of a mask if they fit its shape.

    Raises:
        ValueError: they are of another shape.
    """
    unused = -prod(shape) % 8
    whole = stored.dtype == torch.uint8 and stored.shape == ((prod(shape) + unused) // 8,)
    if not whole or min(shape, default=0) < 0 or (unused and int(stored[-1]) & (2**unused - 1)):
        raise ValueError(f"bits of shape {list(stored.shape)} are no mask of shape {list(shape)}")
    return stored.numpy()


def _cause(weight: Tensor) -> str:
    odd = weight.numel() - int(torch.isfinite(weight).sum())
    if odd:  # 0 * NaN is NaN: no mask can hold such a weight
        return (
            f": {odd} of its {plural(weight.numel(), 'weight')} are NaN or infinite. It is the training that "
            "diverged, not the masks that failed; lower the learning rate or rho."
        )
    return ". Apply the masks after each step, for instance with Masks.hold(model).attach(optimizer)."


def check_same(wanted: Mapping[str, Shape], found: Mapping[str, Any], owner: str) -> None:
    """Raises unless the shapes are the same, by name.

    Raises:
        InputError: ``found`` lacks a name of ``wanted``, or has it in another shape; ``owner`` is who was asked.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise InputError(f"there is no {name} in {owner}. Use masks of the same architecture.")
        if tuple(found[name]) != tuple(shape):
            raise InputError(
                f"{name} is masked with shape {list(shape)}, but in {owner} it has {list(found[name])}. "
                "Use masks of the same architecture."
            )
