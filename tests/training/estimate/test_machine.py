"""The table of GPUs, the names they are called by, and the peak that is measured."""

import pytest
import torch

from detour.errors import ConfigError
from detour.training.estimate.machine import CONTEXTS, gemm_peak, gpu_called, gpus, processor


def test_the_table_is_whole():
    known = gpus()
    assert len(known) >= 20
    for name, gpu in known.items():
        assert gpu.name == name
        assert 10e9 <= gpu.memory <= 300e9
        assert 50e12 <= gpu.flops <= 3e15
        assert 50 <= gpu.watts <= 1500
        assert 10e9 <= gpu.link <= 1e12
        assert gpu.context == CONTEXTS["cuda"]
        assert gpu.source


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("A100-80GB", "A100-80GB"),
        ("a100 80gb", "A100-80GB"),
        ("A100-80", "A100-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("A100", "A100-40GB"),  # the smaller one, for caution
        ("A100 PCIe 80GB", "A100-PCIe-80GB"),
        ("l40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("Tesla T4", "T4"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_a_gpu_is_known_by_many_names(called, name):
    assert gpu_called(called).name == name


def test_no_name_means_two():
    names = list(gpus())
    assert [gpu_called(name).name for name in names] == names


def test_an_unknown_gpu_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        gpu_called("L40X")
    assert "L40S" in caught.value.expected
    assert caught.value.hint == "did you mean 'L40'?"
    with pytest.raises(ConfigError) as caught:
        gpu_called("Voodoo")
    assert "--watts" in caught.value.hint


def test_the_processor_is_measured():
    here = processor(torch.float32)
    assert here.flops > 1e8
    assert here.memory > 1e9
    assert "float32" in here.source
    assert gemm_peak(torch.device("cpu"), torch.float32, 64) > 1e7
