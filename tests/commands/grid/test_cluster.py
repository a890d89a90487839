"""A grid on Ray: two nodes that share a folder, and clusters that do not answer."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from tests.support.grids import tiny_recipe
from tests.support.processes import workers_of
from trainflat.commands.grid.cluster import Cluster
from trainflat.commands.grid.grid import grid
from trainflat.commands.run import run
from trainflat.core.errors import InputError


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Two raylets on this machine with one core each."""
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
def test_two_nodes_share_a_folder_and_a_killed_worker_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    out, killed = tmp_path / "runs", list[int]()

    def kill_one(entries: object) -> None:
        if not killed and (alive := workers_of(out)):
            time.sleep(1)
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    made = {"recipe": tiny_recipe(tmp_path), "axes": {"seed": [0, 1, 2, 3]}}
    result = grid(made, out=out, workers=2, ray=nodes.address, watch=kill_one)
    assert killed
    assert result.failed == {}
    assert [run(one.recipe, out=tmp_path / "alone").digest for one in result.records] == [
        one.digest for one in result.records
    ]


def test_an_address_where_nothing_listens_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        Cluster(f"127.0.0.1:{port}", 1, 1)


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs Ray, which is not installed. pip install 'trainflat\[ray\]'"):
        Cluster("auto", 1, 1)
