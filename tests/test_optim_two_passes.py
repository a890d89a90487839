"""The way there and back, and one set of groups and state for wrapper and base."""

import copy
import io

import accelerate
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from trainflat.errors import InputError
from trainflat.optim import SAM, AdamW


def problem(seed: int = 0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 1))
    inputs = torch.randn(12, 4)

    def passes() -> Tensor:
        model.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    return model, passes


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().numpy().tobytes() for p in model.parameters()]


def two_passes(optimizer, passes) -> None:
    passes()
    with optimizer.perturbed():
        passes()
    optimizer.step()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("p", [1.5, 2.0])
def test_weights_come_back_bit_for_bit(error, p):
    model, passes = problem()
    with torch.no_grad():  # numbers that subtracting what was added would not restore
        model[0].weight[0] = torch.tensor([1e-30, -0.0, 1e30, float("nan")])
        model[0].weight[1] = torch.tensor([1e-45, 16777217.0, 0.1, -3.0])
    optimizer, before = SAM(model.parameters(), rho=0.7, p=p), bits(model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    caught = None
    try:
        with optimizer.perturbed():
            assert bits(model) != before
            if error is not None:
                raise error
    except BaseException as raised:
        caught = type(raised)
    assert caught is error
    assert bits(model) == before
    passes()
    two_passes(optimizer, passes)  # and the optimizer is as usable as ever


@pytest.mark.parametrize("at", ["_foreach_copy_", "_foreach_add_"])
def test_an_interrupt_on_the_way_there_is_undone_too(monkeypatch, at):
    model, passes = problem()
    optimizer, before = SAM(model.parameters(), rho=0.7), bits(model)
    passes()
    real = getattr(torch, at)

    def interrupted(*args, **kwargs):
        monkeypatch.setattr(torch, at, real)
        real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, at, interrupted)
    with pytest.raises(KeyboardInterrupt), optimizer.perturbed():
        pytest.fail("the block must not run")
    assert bits(model) == before


def test_an_exception_in_the_second_pass_of_a_closure_leaves_the_weights():
    model, passes = problem()
    optimizer, before, calls = SAM(model.parameters(), rho=0.7), bits(model), []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return passes()

    with pytest.raises(MemoryError):
        optimizer.step(closure)
    assert bits(model) == before


def test_blocks_are_not_nested():
    model, passes = problem()
    optimizer, before = SAM(model.parameters()), bits(model)
    passes()
    with (
        pytest.raises(RuntimeError, match="entered inside its own block"),
        optimizer.perturbed(),
        optimizer.perturbed(),
    ):
        pytest.fail("the inner block must not run")
    assert bits(model) == before
    with pytest.raises(RuntimeError, match="Call it after the block"), optimizer.perturbed():
        optimizer.step()
    assert bits(model) == before


def test_step_needs_a_second_gradient_each_time():
    model, passes = problem()
    optimizer = SAM(model.parameters())
    text = (
        r"SAM\.step\(\) was called before a second gradient was taken\. Run the forward and backward pass again inside "
        r"`with optimizer\.perturbed\(\):`, or pass a closure\."
    )
    passes()
    with pytest.raises(RuntimeError, match=text):
        optimizer.step()
    two_passes(optimizer, passes)
    with pytest.raises(RuntimeError, match=text):
        optimizer.step()
    passes()
    with optimizer.perturbed():
        passes()  # not stepped with, as when a scaler skips the step
    with pytest.raises(ZeroDivisionError), optimizer.perturbed():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match=text):
        optimizer.step()


def test_a_closure_is_run_twice_and_is_the_same_step():
    (one, closure), (two, passes) = problem(), problem()
    by_closure, by_hand, losses = SAM(one.parameters()), SAM(two.parameters()), []
    for _ in range(3):
        with torch.no_grad():  # closures bring their own autograd
            by_closure.step(lambda: losses.append(closure()) or losses[-1])
        two_passes(by_hand, passes)
    assert len(losses) == 3 * by_closure.passes_per_step
    assert bits(one) == bits(two)
    assert losses[1] > losses[0]  # the second pass stands higher


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


def problem_inputs() -> Tensor:
    torch.manual_seed(0)
    nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 1))
    return torch.randn(12, 4)


def test_hooks_before_the_displacement_shape_it():
    model, passes = problem()
    optimizer = SAM(model.parameters(), rho=0.5)
    mask = (torch.arange(24).reshape(6, 4) % 3 > 0).float()
    with torch.no_grad():
        model[0].weight.mul_(mask)
    seen = []

    def hold(opt) -> None:
        seen.append(opt)
        assert not torch.is_grad_enabled()
        model[0].weight.grad.mul_(mask)

    handle = optimizer.register_perturb_pre_hook(hold)
    passes()
    with optimizer.perturbed():
        assert int((model[0].weight != 0).sum()) == int(mask.sum())
    assert seen == [optimizer]
    handle.remove()
    passes()
    with optimizer.perturbed():
        assert int((model[0].weight != 0).sum()) == 24
    assert len(seen) == 1


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


def test_frozen_and_unused_parameters_stay():
    model, passes = problem()
    model[0].weight.requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    optimizer, before = SAM([*model.parameters(), unused], rho=0.5), bits(model)[0]
    two_passes(optimizer, passes)
    assert bits(model)[0] == before
    assert unused.tolist() == [1.0, 1.0]
    assert optimizer.last_norm.item() == pytest.approx(0.5)


def test_an_empty_parameter_has_no_largest_entry():
    w, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.empty(0))
    w.grad, empty.grad = torch.ones(2), torch.empty(0)
    with SAM([w, empty], rho=0.5, p=float("inf")).perturbed():
        assert w.tolist() == [1.5, 1.5]


def test_nothing_to_displace_is_no_error():
    optimizer = SAM([nn.Parameter(torch.ones(2)), nn.Parameter(torch.empty(0))])
    with optimizer.perturbed():
        pass
    optimizer.step()
    assert optimizer.last_norm == 0


@pytest.mark.parametrize(
    ("exclude", "still"),
    [
        (["bias"], {"0.bias", "2.bias", "3.bias"}),
        (["*.bias", "2.weight"], {"0.bias", "2.bias", "3.bias", "2.weight"}),
        ("[03].*", {"0.weight", "0.bias", "3.weight", "3.bias"}),
        ([], set()),
    ],
)
def test_exclusions_by_name(exclude, still):
    model, passes = problem()
    optimizer = SAM(model.named_parameters(), rho=0.5, exclude=exclude)
    passes()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with optimizer.perturbed():
        moves = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    assert {name for name, move in moves.items() if not move.any()} == still
    total = torch.cat([move.flatten() for move in moves.values()]).norm()
    assert total.item() == pytest.approx(0.5, rel=1e-5)  # so the norm is that of the displaced ones only


def test_exclusions_hold_for_groups_added_later_and_after_loading():
    model, passes = problem()
    optimizer = SAM([{"params": model[0].named_parameters()}], exclude=["bias"])
    optimizer.add_param_group({"params": model[3].named_parameters()})
    optimizer.load_state_dict(optimizer.state_dict())
    passes()
    biases = [model[0].bias.detach().clone(), model[3].bias.detach().clone()]
    with optimizer.perturbed():
        assert torch.equal(model[0].bias, biases[0])
        assert torch.equal(model[3].bias, biases[1])


def test_exclusions_that_cannot_be():
    model, _ = problem()
    with pytest.raises(InputError, match=r"needs names: pass model\.named_parameters\(\)"):
        SAM(model.parameters(), exclude=["bias"])
    with pytest.raises(InputError, match=r"exclude='\*LayerNorm\*' matches no parameter.*'0\.weight'"):
        SAM(model.named_parameters(), exclude=["bias", "*LayerNorm*"])


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 2, sparse=True)
    optimizer, before = SAM(table.parameters(), torch.optim.SGD, lr=0.1), bits(table)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(InputError, match="needs dense gradients"), optimizer.perturbed():
        pytest.fail("the block must not run")
    assert bits(table) == before


def test_a_base_with_its_own_rho_is_refused():
    with pytest.raises(InputError, match="Adadelta has an option rho"):
        SAM([nn.Parameter(torch.ones(2))], torch.optim.Adadelta)


def test_scratch_is_kept_and_follows_the_parameters():
    model, passes = problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    two_passes(optimizer, passes)
    first = [b.data_ptr() for b in optimizer._buffers.values()]
    two_passes(optimizer, passes)
    assert [b.data_ptr() for b in optimizer._buffers.values()] == first
    model.double()
    before = bits(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with optimizer.perturbed():
        assert bits(model) != before
    assert bits(model) == before
    assert {b.dtype for b in optimizer._buffers.values()} == {torch.float64}


def test_strides_of_a_parameter_do_not_matter():
    w = nn.Parameter(torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last))
    optimizer, before = SAM([w], rho=0.5), w.detach().clone()
    w.grad = torch.randn(3, 4, 2, 2)
    with optimizer.perturbed():
        torch.testing.assert_close(w - before, 0.5 * w.grad / w.grad.norm(), rtol=1e-4, atol=1e-6)
    assert torch.equal(w, before)
