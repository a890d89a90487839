"""One set of groups, state and hooks for wrapper and base: schedulers, accelerate, scalers, checkpoints, copies."""

import copy
import io

import accelerate
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from tests.support.optimizers import bits, problem, problem_inputs, two_passes
from trainflat.optim import SAM, AdamW, LookSAM


def test_groups_state_and_defaults_are_those_of_the_base_for_ever():
    model, passes = problem()
    optimizer = SAM(model[0].parameters(), lr=0.1)

    def shared() -> bool:
        names = ("param_groups", "state", "defaults")
        return all(getattr(optimizer, name) is getattr(optimizer.base, name) for name in names)

    assert shared()
    two_passes(optimizer, passes)
    optimizer.load_state_dict(optimizer.state_dict())
    assert shared()
    optimizer.add_param_group({"params": model[3].parameters(), "lr": 0.2})
    assert shared()
    assert optimizer.base.param_groups[1]["rho"] == 0.05
    optimizer.param_groups[0]["lr"] = 0.0
    assert optimizer.base.param_groups[0]["lr"] == 0.0
    optimizer.param_groups = list(optimizer.param_groups)  # what wrappers around wrappers do
    assert shared()
    two_passes(optimizer, passes)
    assert len(optimizer.state_dict()["state"]) == 4


def test_a_base_checkpoint_leaves_the_radius():
    model, passes = problem()
    plain = torch.optim.AdamW(model.parameters(), lr=0.3)
    passes()
    plain.step()
    optimizer = SAM([{"params": list(model.parameters()), "rho": 0.2}], torch.optim.AdamW)
    optimizer.load_state_dict(plain.state_dict())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.3, 0.2)
    two_passes(optimizer, passes)


def test_state_dict_is_the_base_state_without_scratch():
    model, passes = problem()
    optimizer = SAM(model.parameters(), AdamW)
    two_passes(optimizer, passes)
    saved = optimizer.state_dict()
    assert {key for state in saved["state"].values() for key in state} == {"step", "exp_avg", "exp_avg_sq"}
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)  # holds nothing that must be unpickled
    assert loaded["param_groups"] == saved["param_groups"]


def test_a_schedule_reaches_the_base():
    model, passes = problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=1.0)
    scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
    for expected in (1.0, 0.5, 0.25):
        assert optimizer.base.param_groups[0]["lr"] == expected
        two_passes(optimizer, passes)
        scheduler.step()  # warns, here an error, if it believes that no step was taken
    cycle = OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    momentum = optimizer.base.param_groups[0]["momentum"]
    two_passes(optimizer, passes)
    cycle.step()
    assert optimizer.base.param_groups[0]["momentum"] < momentum


def test_a_schedule_reaches_the_base_through_accelerate():
    model, passes = problem()
    sam = SAM(model.parameters(), lr=1e-2, base_optimizer=torch.optim.SGD)
    scheduler = LambdaLR(sam, lambda step: max(0.0, 1 - step / 2))
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer, scheduler = accelerator.prepare(model, sam, scheduler)
    for _ in range(2):
        passes()
        with sam.perturbed():
            passes()
        optimizer.step()
        scheduler.step()
    assert sam.base.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.0
    before = bits(model)
    passes()
    with sam.perturbed():
        passes()
    optimizer.step()
    assert bits(model) == before  # a learning rate of 0 reaches the step that is taken
    assert not optimizer.step_was_skipped


@pytest.mark.parametrize("overflow", [None, "first", "second"])
def test_mixed_precision_scaler(overflow):
    (scaled, _), (plain, passes) = problem(), problem()
    torch.manual_seed(0)
    inputs = problem_inputs()
    optimizer, reference = SAM(scaled.parameters(), AdamW, lr=0.1), SAM(plain.parameters(), AdamW, lr=0.1)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=2.0**10), bits(scaled)

    def scaled_pass(bad: bool) -> None:
        optimizer.zero_grad()
        scaler.scale(scaled(inputs).square().mean()).backward()
        if bad:
            scaled[0].weight.grad[0, 0] = float("inf")

    scaled_pass(overflow == "first")
    with optimizer.perturbed():
        assert (bits(scaled) == before) == (overflow == "first")
        assert (optimizer.last_norm == 0) == (overflow == "first")
        scaled_pass(overflow == "second")
    scaler.step(optimizer)
    scaler.update()
    if overflow is None:
        two_passes(reference, passes)
        for p, q in zip(scaled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert (bits(scaled) == before) == (overflow == "second")
    assert scaler.get_scale() == (2.0**9 if overflow == "second" else 2.0**10)


@pytest.mark.parametrize("finished", [False, True])
def test_a_step_that_the_scaler_left_out_is_not_half_of_the_next(finished):
    model, _ = problem()
    optimizer, inputs = SAM(model.parameters(), AdamW, lr=0.1), problem_inputs()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def scaled_pass() -> None:
        optimizer.zero_grad()
        scaler.scale(model(inputs).square().mean()).backward()

    scaled_pass()
    with optimizer.perturbed():
        scaled_pass()
        model[0].weight.grad[0, 0] = float("inf")
    if finished:  # as before clipping
        optimizer.finish_gradients()
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.steps_taken == 0
    before = bits(model)
    scaled_pass()
    with pytest.raises(RuntimeError, match="before a second gradient was taken"):
        scaler.step(optimizer)
    assert bits(model) == before


def test_gradients_of_the_step_after_one_that_was_left_out_are_finished_too():
    paths = []
    for skipped in (False, True):
        model, passes = problem()
        optimizer = LookSAM(model.parameters(), torch.optim.SGD, lr=0.1, k=2)
        two_passes(optimizer, passes)
        if skipped:
            optimizer.zero_grad()
            passes()
            optimizer.finish_gradients()
        optimizer.zero_grad()
        passes()
        optimizer.step()
        paths.append(bits(model))
    assert paths[0] == paths[1]


def test_torch_hooks_work_on_the_wrapper():
    model, passes = problem()
    optimizer, seen = SAM(model.parameters()), []
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: seen.append(("pre", opt)))
    optimizer.register_step_post_hook(lambda opt, args, kwargs: seen.append(("post", opt)))
    optimizer.register_state_dict_post_hook(lambda opt, saved: saved | {"note": 1})
    two_passes(optimizer, passes)
    assert seen == [("pre", optimizer), ("post", optimizer)]
    assert optimizer.state_dict()["note"] == optimizer.base.state_dict()["note"] == 1
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    assert repr(optimizer).startswith("SAM (")


def test_a_copy_goes_its_own_way():
    model, passes = problem()
    optimizer = SAM(model.named_parameters(), torch.optim.AdamW, lr=0.1, exclude=["bias"])
    LambdaLR(optimizer, lambda step: 1.0)
    two_passes(optimizer, passes)
    twin, copied = copy.deepcopy((model, optimizer))
    before = bits(twin)
    two_passes(optimizer, passes)
    assert bits(twin) == before
    assert copied.base is not optimizer.base
    assert copied.param_groups is copied.base.param_groups
    assert copied.param_groups[0]["params"][0] is next(twin.parameters())
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.grad = q.grad.clone()
    with copied.perturbed():
        assert twin[3].bias.detach().numpy().tobytes() == before[-1]  # still excluded
        assert bits(twin)[0] != before[0]
        for p, q in zip(twin.parameters(), model.parameters(), strict=True):
            p.grad = q.grad.clone()
    copied.step()
    assert bits(twin) == bits(model)
