"""Narrow convolutions of the encoders from scratch, on which oneDNN 3.12 corrupts memory."""

import os
import subprocess
import sys

import pytest
import torch
from close import assert_like
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.encoders.resnet import ResNetEncoder

NARROW = {
    "logmel": lambda: LogMelEncoder(widths=(4, 8, 8, 8), dim=8, bfloat16=False),
    "resnet": lambda: ResNetEncoder(depths=(1, 1, 1, 1), widths=(4, 8, 8, 8), bfloat16=False),
}
WIDE = {
    "logmel": lambda: LogMelEncoder(),
    "resnet": lambda: ResNetEncoder(depths=(1, 1, 1, 1), widths=(64, 64, 64, 64)),
}


def strided(encoder):
    """Strided 1x1 convolutions of fewer channels than one block."""
    return [
        name
        for name, m in encoder.named_modules()
        if isinstance(m, torch.nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.stride != (1, 1)
        and m.in_channels < 16
    ]


@pytest.mark.parametrize("kind", NARROW)
def test_no_narrow_convolution_strides_by_itself(kind):
    assert strided(NARROW[kind]()) == []


@pytest.mark.parametrize("kind", WIDE)
def test_wide_convolutions_keep_their_stride(kind):
    kept = [m for m in WIDE[kind]().modules() if isinstance(m, torch.nn.Conv2d)]
    assert any(m.kernel_size == (1, 1) and m.stride != (1, 1) for m in kept)
    assert not any(m._forward_pre_hooks for m in kept)


@pytest.mark.parametrize("kind", NARROW)
def test_taking_every_second_input_first_changes_nothing(kind):
    torch.manual_seed(0)
    encoder = NARROW[kind]().eval()
    hidden, mask = encoder.extract(torch.randn(3, 16_000), torch.tensor([16_000, 9000, 6000]))
    ours = gradients(encoder, hidden, mask)
    for m in encoder.modules():
        if isinstance(m, torch.nn.Conv2d) and m._forward_pre_hooks:
            (hook,) = m._forward_pre_hooks.values()
            m.stride = hook.args[0]
            m._forward_pre_hooks.clear()
    assert strided(encoder) != []
    with torch.backends.mkldnn.flags(enabled=False):  # the reference is not the faulty kernel
        for one, other in zip(ours, gradients(encoder, hidden, mask), strict=True):
            assert_like(one, other)


def gradients(encoder, hidden, mask):
    encoder.zero_grad()
    frames = encoder(hidden, mask)
    frames.x.square().sum().backward()
    return [frames.x.detach(), *(p.grad.clone() for p in encoder.parameters())]


STEPS = """
import torch
from serzoo.zoo.encoders.{module} import {name} as Encoder
torch.manual_seed(0)
encoder = Encoder({options}, bfloat16=False).train()
for k in range(40):
    lengths = torch.tensor([9000 + 500 * k, 5000, 3000])
    frames = encoder(*encoder.extract(torch.randn(3, int(lengths[0])), lengths))
    frames.x.sum().backward()
print("alive")
"""


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("logmel", "LogMelEncoder", "widths=(4, 8, 8, 8), dim=8"),
        ("resnet", "ResNetEncoder", "widths=(4, 8, 8, 8), depths=(1, 1, 1, 1)"),
    ],
)
def test_a_process_of_several_threads_survives(module, name, options):
    code = STEPS.format(module=module, name=name, options=options)
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
