"""The way there and back."""

import pytest
import torch
from torch import nn

from tests.support.optimizers import bits, problem, two_passes
from trainflat.optim import SAM


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
    assert len(losses) == 3 * by_closure.average_passes({})
    assert bits(one) == bits(two)
    assert losses[1] > losses[0]  # the second pass stands higher


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
