"""What XLA's compilers for TPUs and GPUs make of the loss and the step.

Run by `make tpu-compile` and `make gpu-compile`, which install the compilers.
No TPU or GPU is needed.
"""

import dataclasses
import importlib.util
import math
import re

import jax
import jax.numpy as jnp
import pytest

import fcn_jax as fcn
from experiments.benchmarks.accelerators import analysis
from experiments.benchmarks.accelerators import programs
from experiments.benchmarks.accelerators import topologies
from tests.helpers import tiny_networks


@pytest.fixture(autouse=True)
def no_cache():
  """A program for a device that is not here cannot be read from a cache."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  yield
  jax.config.update("jax_enable_compilation_cache", before)


SAMPLERS = {
  "whole image": fcn.sampling.whole_image(),
  "places": fcn.sampling.places(rate=1 / 16),
  "blocks": fcn.sampling.bernoulli(rate=1 / 8),
  "pixels": fcn.sampling.bernoulli(rate=1 / 16, unit="pixel"),
  "uncertain": fcn.sampling.uncertain(count=500),
}


def marked(device, *more):
  """A test's parameters, with the mark of its target in the Makefile."""
  kind = "gpu" if device.startswith("h100") else "tpu"
  package = {"gpu": "jax_cuda12_plugin", "tpu": "libtpu"}[kind]
  is_there = importlib.util.find_spec(package) is not None
  return pytest.param(
    device,
    *more,
    marks=[
      getattr(pytest.mark, f"{kind}_compile"),
      pytest.mark.skipif(
        not is_there, reason=f"needs {package}: make {kind}-compile"
      ),
    ],
  )


def read(compiled, device):
  platform = "gpu" if device.startswith("h100") else "tpu"
  return analysis.read(compiled.as_text(), platform=platform)


@pytest.mark.parametrize(
  "device, name",
  [marked("h100:8", name) for name in SAMPLERS]
  # Compiling takes longer, and other tests compile the others.
  + [marked("v5e:2x2", name) for name in ("blocks", "pixels")],
)
def test_devices_with_parts_of_a_batch_only_sum_at_the_end(device, name):
  mesh = topologies.mesh(device)
  compiled = programs.loss(mesh, SAMPLERS[name], num_classes=21, image_size=128)
  found = read(compiled, device)
  assert found.collectives.keys() == {"all-reduce"}
  assert found.collectives_in_loops == 0


@pytest.mark.parametrize("device", [marked("h100:8"), marked("v5e:2x2")])
def test_uncertain_pixels_need_the_scores_of_candidates_only(device):
  mesh = topologies.mesh(device)
  compiled = programs.loss(
    mesh,
    SAMPLERS["uncertain"],
    num_classes=21,
    num_images=mesh.size,
    image_size=128,
  )
  gathered = re.findall(r"= f32\[([\d,]*)\]\S* gather\(", compiled.as_text())
  sizes = [math.prod(map(int, shape.split(","))) for shape in gathered]
  # The four neighbours of three candidates for each of the 500 pixels; all
  # pixels have 128 * 128 * 21 logits.
  assert max(sizes) == 4 * 3 * 500 * 21


@pytest.mark.parametrize("device", [marked("h100:8"), marked("v5e:2x2")])
def test_losses_of_regions_only_sum_at_the_end(device):
  compiled = programs.loss(
    topologies.mesh(device),
    SAMPLERS["places"],
    num_classes=21,
    image_size=128,
    of=fcn.losses.dice(),
  )
  found = read(compiled, device)
  assert found.collectives.keys() == {"all-reduce"}
  assert found.collectives_in_loops == 0


@pytest.mark.parametrize("device", [marked("v5e:16x16"), marked("v6e:2x2")])
def test_all_sizes_and_generations_only_sum_at_the_end(device):
  mesh = topologies.mesh(device)
  compiled = programs.loss(
    mesh,
    SAMPLERS["places"],
    num_classes=21,
    num_images=mesh.size,
    image_size=128,
  )
  found = read(compiled, device)
  assert found.collectives.keys() == {"all-reduce"}
  assert found.collectives_in_loops == 0


@pytest.mark.parametrize("device", [marked("h100:8"), marked("v5e:2x2")])
def test_a_train_step_only_sums_gradients_and_counts(device):
  model = fcn.models.FCN(6, backbone="vgg_small", dtype=jnp.bfloat16)
  compiled = programs.train_step(
    topologies.mesh(device),
    model,
    SAMPLERS["places"],
    num_images=16,
    image_size=64,
  )
  found = read(compiled, device)
  assert found.collectives.keys() == {"all-reduce"}
  assert found.collectives_in_loops == 0
  text = compiled.as_text()
  assert "f64[" not in text
  assert "xla_python" not in text and "callback" not in text
  if device.startswith("h100"):
    assert "bf16[" in text and "__cudnn$conv" in text


# A VGG of few layers, and head layers that 256 devices can share.
SMALL = {"backbone": "tiny", "head_width": 256, "dtype": jnp.bfloat16}


@pytest.mark.long
@pytest.mark.parametrize("device", [marked("v5e:16x16")])
def test_a_pod_that_shares_the_state_gathers_it_and_nothing_else(
  device, monkeypatch
):
  tiny_networks.add_tiny(monkeypatch)
  model, mesh = fcn.models.FCN(6, **SMALL), topologies.mesh(device)
  options = {"num_images": mesh.size, "image_size": 64}
  whole, shared = (
    programs.train_step(mesh, model, SAMPLERS["places"], fsdp=fsdp, **options)
    for fsdp in (False, True)
  )
  assert read(whole, device).collectives.keys() == {"all-reduce"}
  found = read(shared, device)
  assert found.collectives.keys() <= {
    "all-reduce", "all-gather", "reduce-scatter"
  }  # fmt: skip
  assert found.collectives_in_loops == 0
  # fc6 and fc7 in bfloat16, perhaps as a sum with zeros.
  head = 2 * (9 * 8 * 256 + 256 * 256)
  gradients = sum(read(whole, device).exchanged.values())
  assert sum(found.exchanged.values()) <= 1.01 * gradients + 2 * head
  # Parameters and two moments, of which the head is most.
  whole, shared = (
    one.memory_analysis().argument_size_in_bytes for one in (whole, shared)
  )
  assert shared < whole / 2


@pytest.mark.long
@pytest.mark.parametrize("device", [marked("v5e:16x16")])
def test_a_pod_that_shares_rows_exchanges_their_borders_only(
  device, monkeypatch
):
  tiny_networks.add_tiny(monkeypatch)
  mesh = topologies.mesh(device, row_shards=16)
  side = 16 * 64
  compiled = programs.train_step(
    mesh,
    fcn.models.FCN(6, **SMALL),
    SAMPLERS["places"],
    num_images=16,
    image_size=side,
  )
  found = read(compiled, device)
  assert found.collectives_in_loops == 0
  # One map of the first layer, of one image, has 16 MB.
  assert found.exchanged.get("all-gather", 0) < 1e6
  assert found.exchanged["collective-permute"] < 4e6
  assert "all-to-all" not in found.collectives
  # Its logits alone have 25 MB.
  assert compiled.memory_analysis().temp_size_in_bytes < 16e6


@pytest.mark.long
@pytest.mark.parametrize("device", [marked("v5e:1x1")])
def test_blocks_that_are_computed_again_take_less_memory(device, monkeypatch):
  # Where most features lie between the first blocks, and in them.
  residual = fcn.models.backbones.resnet.ARCHITECTURES
  deep = dataclasses.replace(
    residual["resnet50"], depths=(5, 1, 1, 1), widths=(8, 8, 8, 8)
  )
  monkeypatch.setitem(residual, "resnet50", deep)
  model = fcn.models.FCN(
    6,
    backbone="resnet50",
    normalization="none",
    stride=32,
    dtype=jnp.bfloat16,
  )
  kept, again = (
    programs.train_step(
      topologies.mesh(device),
      model.clone(remat=remat),
      SAMPLERS["places"],
      num_images=4,
      image_size=512,
    )
    .memory_analysis()
    .temp_size_in_bytes
    for remat in ("none", "blocks")
  )
  assert again < 0.9 * kept


@pytest.mark.parametrize("device", [marked("h100:1")])
def test_on_a_gpu_the_loss_takes_few_launches(device):
  mesh = topologies.mesh(device)
  compiled = programs.loss(mesh, SAMPLERS["whole image"], num_classes=21)
  assert read(compiled, device).launches <= 20
  compiled = programs.loss(mesh, SAMPLERS["places"], num_classes=150)
  assert read(compiled, device).launches <= 20
  assert compiled.memory_analysis().temp_size_in_bytes <= 0.4e9


@pytest.mark.parametrize("device", [marked("h100:1")])
@pytest.mark.parametrize("name", ["whole image", "places"])
def test_on_a_gpu_no_form_slows_the_step_down(device, name):
  model = fcn.models.FCN(21, backbone="vgg_small", dtype=jnp.bfloat16)
  seconds = {
    form: read(
      programs.train_step(
        topologies.mesh(device),
        model,
        SAMPLERS[name],
        num_images=16,
        image_size=256,
        form=form,
      ),
      device,
    ).seconds
    for form in ("logits", "auto")
  }
  assert seconds["auto"] <= 1.15 * seconds["logits"]


@pytest.mark.parametrize("device", [marked("v5e:1x1")])
def test_on_a_tpu_the_loss_of_the_whole_image_takes_little_memory(device):
  mesh = topologies.mesh(device)
  compiled = programs.loss(mesh, SAMPLERS["whole image"], num_classes=21)
  # All logits would be 352 MB.
  assert compiled.memory_analysis().temp_size_in_bytes <= 352e6 / 20
  found = read(compiled, device)
  assert found.unestimated == 0
  assert found.dynamic_loops == 0


def test_a_compiler_that_is_not_there_is_named_with_its_remedy(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ModuleNotFoundError, match="make tpu-compile"):
    topologies.mesh("v5e:2x2")
  with pytest.raises(ModuleNotFoundError, match="make gpu-compile"):
    topologies.mesh("h100:1")


# The reader, on a program of ours.

PROGRAM = """
HloModule test
%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], f32[8]) parameter(0)
  %one = f32[8]{0} fusion(%arg), kind=kLoop, backend_config={"estimated_cycles":"1500"}
  %sum = f32[8]{0} all-reduce(%one), to_apply=%add
}
%condition (arg: (s32[], f32[8])) -> pred[] {
  %limit = s32[] constant(7)
}
ENTRY %main (scores: f32[1000000]) -> f32[1000000] {
  %scores = f32[1000000]{0} parameter(0)
  %loop = (s32[], f32[8]) while(%tuple), condition=%condition, body=%body
  %rows = f32[10]{0} gather(%scores, %indices), offset_dims={}
  ROOT %out = f32[1000000]{0} fusion(%scores), kind=kLoop, backend_config={"estimated_cycles":"3000"}
}
"""  # noqa: E501


def test_loops_count_as_often_as_they_run():
  found = analysis.read(PROGRAM, platform="tpu")
  assert found.seconds == pytest.approx((7 * 1500 + 3000) / 1.5e9)
  assert found.launches == 7 + 1 + 1
  assert found.unestimated == 1
  assert found.collectives == {"all-reduce": 1}
  assert found.collectives_in_loops == 1
  # Seven times eight numbers of four bytes, summed and sent back.
  assert found.exchanged == {"all-reduce": 7 * 8 * 4 * 2}


def test_on_a_gpu_bytes_and_launches_bound_the_time():
  found = analysis.read(PROGRAM, platform="gpu")
  assert found.seconds == pytest.approx(8 * 3e-6 + max(3e-6, 8e6 / 3.35e12))
