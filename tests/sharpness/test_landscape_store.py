"""A plane that is killed anywhere and measured on ends like one that was not, to the bit."""

import json

import pytest
import torch

from tests.conftest import tiny_bert
from tests.support.fresh import run_fresh
from tests.support.landscape_kill_driver import POINTS
from tests.support.loss_planes import BERT, sentences
from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.progress import Progress
from trainflat.sharpness import Objective, loss_plane


@pytest.mark.long
def test_a_killed_plane_goes_on_where_it_was(tmp_path):
    done = run_fresh(tmp_path, module="tests.support.landscape_kill_driver")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    whole, *killed = [{**how, **what} for how, what in zip(lines[::2], lines[1::2], strict=True)]
    assert (whole["signal"], whole["passes"], len(killed)) == (0, 12, len(POINTS) - 1)
    for line in killed:
        assert line["signal"] == 9, line
        assert line["plane"] == whole["plane"], line["point"]
        assert line["passes"] == 12 - line["kept"], line["point"]  # what was kept is not measured again
        assert line["left"] == ["plane.json", "store.json"], line["point"]
    assert [line["kept"] for line in killed] == [0, 8, 0, 4, 10, 12]


def plane(store, **changes):
    model, batches = changes.pop("model", None) or tiny_bert(5), changes.pop("batches", None) or sentences()
    options = {"points": BERT, "size": 2, "store": store} | changes
    masks, progress = options.pop("masks", None), options.pop("progress", None)
    return loss_plane(Objective(model, batches, masks=masks, progress=progress), **options)


def test_a_whole_store_takes_no_pass_and_says_so(tmp_path):
    totals = []

    class Seen(Progress):
        def begin(self, what, total, done=0):
            totals.append(total)

    store = tmp_path / "new" / "plane.json"
    first = plane(store, progress=Seen())
    model, calls = tiny_bert(5), []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert plane(store, model=model, progress=Seen()) == first
    assert calls == []
    assert totals == [7 * 6, 0]  # of rows


OTHERS = {
    "size": {"size": 3},
    "margin": {"margin": 0.2},
    "head": {"head": "model 1"},
    "data": {"batches": sentences(seed=1)},
    "order": {"points": dict(reversed(BERT.items()))},
    "names": {"points": dict(zip("abc", BERT.values(), strict=True))},
    "weights": {"points": {**BERT, "model 2": tiny_bert(3).state_dict()}},
    "masks": {"masks": {"classifier.weight": torch.zeros(2, 16, dtype=torch.bool)}},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_the_store_of_another_plane_is_refused(tmp_path, changes):
    store = tmp_path / "store.json"
    plane(store)
    before = store.read_bytes()
    with pytest.raises(InputError, match=r"store.json holds losses of another plane.*Name another store"):
        plane(store, **changes)
    assert store.read_bytes() == before


def test_weights_that_stay_where_they_are_belong_to_the_plane_too(tmp_path):
    """The same states of the encoder under two heads that the objective does not name are two planes."""
    planes = []
    for seed in 5, 6:
        model = tiny_bert(seed)
        model.classifier.requires_grad_(False)
        planes.append(plane(tmp_path / f"{seed}.json", model=model))
    assert planes[0].points == planes[1].points
    assert planes[0].losses != planes[1].losses
    model = tiny_bert(6)
    model.classifier.requires_grad_(False)
    with pytest.raises(InputError, match="another plane"):
        plane(tmp_path / "5.json", model=model)


CUT = '{"work": "x", "losses": {"0,0": NaN}}'


@pytest.mark.parametrize("text", [CUT, "", "{", "[]", '{"work": "x"}', '{"work": "x", "losses": 3}'])
def test_a_damaged_store_is_one_clear_line(tmp_path, text):
    store = tmp_path / "store.json"
    store.write_text(text)
    with pytest.raises(DamagedFile, match=r"store.json .*move it away"):
        plane(store)
