"""What the claims on speed and memory stand on: ours beside the peer, in one run, on the machine at hand.

``python -m benchmarks`` runs all of :data:`BENCHMARKS`, ``python -m benchmarks.sam_step`` one. Each writes
``results/benchmarks/NAME.json``. Linux only: what other processes used is read from ``/proc``.
"""

BENCHMARKS = (
    "sam_step",
    "flat_steps",
    "movement",
    "cut",
    "masks",
    "batching",
    "hvp",
    "plane",
    "kernels",
    "int8",
    "inference",
    "shrunk",
    "budget",
    "sizes",
)
