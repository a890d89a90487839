"""Damages files in every way that chance or malice may think of."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainflat.core.files import seal

Mutation = Callable[[random.Random, bytes], bytes]
HOSTILE = [0, 1, -1, 2, 3, 7, 255, 256, 2**16, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**64, 10**30]
STRANGE: list[Any] = [None, True, "", "x", "../../../etc/passwd", "\0", "\ud800", [], {}, [[]], 1.5, -0.0, 1e300]
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "U64", "F4", "C64", "Q4"]


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def lengthen(rng: random.Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.choice([1, 7, 8, 100, 5000]))


def overwrite(rng: random.Random, content: bytes) -> bytes:
    start, size = rng.randrange(len(content)), rng.choice([1, 8, 64, 512])
    filling = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size), b"9" * size])
    return (content[:start] + filling + content[start + size :])[: len(content)]


def move_a_piece(rng: random.Random, content: bytes) -> bytes:
    start, end, target = sorted(rng.randrange(len(content)) for _ in range(3))
    return content[:start] + content[end:target] + content[start:end] + content[target:]


def grow_digits(rng: random.Random, content: bytes) -> bytes:
    places = [i for i, byte in enumerate(content[:20000]) if 48 <= byte <= 57]
    changed = bytearray(content)
    for place in rng.sample(places, min(len(places), rng.choice([1, 2, 5]))):
        changed[place] = rng.randrange(48, 58)
    return bytes(changed)


def pickled(rng: random.Random, _: bytes) -> bytes:
    return pickle.dumps({"weights": [rng.random()] * 50})


ANY: list[Mutation] = [flip_bits, flip_bits, cut, lengthen, overwrite, move_a_piece, grow_digits, pickled]


def change_json(rng: random.Random, content: bytes) -> bytes:
    """Another value at a random place, or a key less, or one under another name."""
    value = json.loads(content)
    place, spots = value, []
    todo: list[Any] = [value]
    while todo:
        place = todo.pop()
        keys = list(place) if isinstance(place, dict) else range(len(place))
        spots += [(place, key) for key in keys]
        todo += [place[key] for key in keys if isinstance(place[key], dict | list)]
    place, key = rng.choice(spots)
    action = rng.randrange(4)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, dict):
        place[rng.choice(["../" + key, key + "\0", "x" * 300, "", "/etc/passwd", key.upper()])] = place.pop(key)
    else:
        other = place[rng.choice(list(place) if isinstance(place, dict) else range(len(place)))]
        place[key] = rng.choice([rng.choice(HOSTILE), rng.choice(STRANGE), rng.choice(DTYPES), other])
    return json.dumps(value).encode()


def change_header(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file whose header is JSON as before, but tells something else."""
    size = int.from_bytes(content[:8], "little")
    header = change_json(rng, content[8 : 8 + size])
    header += b" " * (-len(header) % 8)
    told = len(header) if rng.random() < 0.9 else rng.choice(HOSTILE) % 2**64
    return told.to_bytes(8, "little") + header + content[8 + size :]


def change_numbers(rng: random.Random, content: bytes) -> bytes:
    """Whole numbers of eight bytes in the data, where shapes are."""
    size = int.from_bytes(content[:8], "little")
    shapes = [
        8 + size + one["data_offsets"][0] + rng.choice([0, 8])
        for name, one in json.loads(content[8 : 8 + size]).items()
        if name.endswith("sparse_shape")
    ]
    places = rng.sample(shapes, min(len(shapes), rng.choice([1, 2]))) or [8 + size]
    changed = bytearray(content)
    for place in places:
        changed[place : place + 8] = (rng.choice(HOSTILE) % 2**64).to_bytes(8, "little")
    return bytes(changed)


def change_data(rng: random.Random, content: bytes) -> bytes:
    """Bits of indices and values; the header is whole."""
    size = 8 + int.from_bytes(content[:8], "little")
    return content[:size] + rng.choice([flip_bits, overwrite, move_a_piece])(rng, content[size:])


def mutate(rng: random.Random, source: Path, target: Path) -> None:
    """Copies a model's folder and damages one file of it, three times in four with a manifest that says it is whole."""
    shutil.copytree(source, target)
    weights = next(source.glob("*.safetensors")).name
    name = rng.choice([weights] * 4 + ["config.json"] * 2 + ["manifest.json"])
    own: list[Mutation] = [change_header, change_numbers, change_data] if name == weights else [change_json]
    mutation = rng.choice(ANY + own * 4)
    path = target / name
    path.write_bytes(mutation(rng, path.read_bytes()))
    if name != "manifest.json" and rng.random() < 0.75:
        seal(target)
