"""Networks in ONNX Runtime have the scores that they have here."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax as fcn
from fcn_jax import models
from fcn_jax.cli import export
from tests.helpers import narrow
from tests.helpers import random_runs

pytestmark = pytest.mark.parity

onnxruntime = pytest.importorskip("onnxruntime")

# Height and width: multiples of no stride, smaller than one, and wide.
SIZES = ((2, 64, 96), (1, 75, 53), (1, 17, 130))

NETWORKS = {
  "vgg_small, stride 8": dict(backbone="vgg_small", stride=8),
  "vgg_small, stride 1": dict(backbone="vgg_small", stride=1),
  "vgg_small, groups": dict(
    backbone="vgg_small", stride=32, normalization="group"
  ),
  "vgg16, Caffe": dict(padding="caffe", skip_scales=models.fcn.AT_ONCE_SCALES),
  "vgg16_bn, torchvision": dict(backbone="vgg16_bn", padding="torchvision"),
  "caffenet": dict(backbone="caffenet", stride=32),
  "alexnet, Caffe": dict(backbone="alexnet", stride=16, padding="caffe"),
  "googlenet": dict(backbone="googlenet", stride=4),
  "googlenet_bn": dict(backbone="googlenet_bn", stride=16),
  "resnet50": dict(backbone="resnet50", stride=2),
  "fcn_basic": dict(backbone="fcn_basic", stride=2),
  "bfloat16": dict(
    backbone="vgg_small",
    stride=16,
    dtype=jnp.bfloat16,
    param_dtype=jnp.bfloat16,
  ),
}

# For `make long`, where ONNX Runtime is installed.
LONG = (
  "vgg_small, stride 1",
  "caffenet",
  "googlenet",
  "googlenet_bn",
  "fcn_basic",
  "bfloat16",
)


def exported(tmp_path, model, variables):
  """An ONNX Runtime session of a network."""
  num_classes = models.heads.num_classes(model)
  path = tmp_path / "network.onnx"
  fcn.inference.export_onnx(
    path,
    model,
    variables,
    class_names=[f"class {i}" for i in range(num_classes)],
    palette=np.arange(3 * num_classes, dtype=np.uint8).reshape(-1, 3),
    resize=0.5,
  )
  return onnxruntime.InferenceSession(path)


def check_scores(session, model, variables):
  """Compares scores and classes at several sizes."""
  rng = np.random.default_rng(0)

  @jax.jit
  def logits(images):
    score_map = models.heads.predicted_scores(model, variables, images)
    return fcn.upsampling.to_pixels(score_map)

  for size in SIZES:
    images = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if isinstance(model, models.FCN) and model.padding == "torchvision":
      # Else nothing is left of them.
      images = np.repeat(np.repeat(images, 4, axis=1), 2, axis=2)
    expected = np.asarray(logits(images))
    classes, scores = session.run(["classes", "scores"], {"images": images})
    scores = scores.transpose(0, 2, 3, 1)
    # As much as the scores of a pixel differ from each other.
    scale = expected.std(axis=-1).mean()
    assert scale > 0
    np.testing.assert_allclose(scores / scale, expected / scale, atol=1e-4)
    best = np.sort(expected, axis=-1)
    is_clear = best[..., -1] - best[..., -2] > 1e-3 * scale
    assert is_clear.mean() > 0.9
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(
      classes[is_clear], expected.argmax(axis=-1)[is_clear]
    )


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.long if name in LONG else ())
    for name in NETWORKS
  ],
)
def test_scores_are_those_of_the_network(name, tmp_path, monkeypatch):
  narrow.backbones(monkeypatch)
  options = NETWORKS[name]
  model = models.FCN(5, **options)
  variables = narrow.random_variables(model)
  session = exported(tmp_path, model, variables)
  if options.get("dtype") == jnp.bfloat16:
    model = models.FCN(5, backbone="vgg_small", stride=16)
  check_scores(session, model, variables)


@pytest.mark.parametrize(
  "auxiliary", [pytest.param(False, marks=pytest.mark.long), True]
)
def test_fcn_resnet_has_its_scores(auxiliary, tmp_path, monkeypatch):
  narrow.backbones(monkeypatch)
  model = models.FCNResNet(3, auxiliary=auxiliary)
  variables = narrow.random_variables(model)
  check_scores(exported(tmp_path, model, variables), model, variables)


def test_the_main_head_is_exported(tmp_path):
  model = models.FCN(
    {"semantic": 4, "geometric": 3}, backbone="vgg_small", stride=16
  )
  variables = narrow.random_variables(model)
  check_scores(exported(tmp_path, model, variables), model, variables)


def small_network():
  model = models.FCN(2, backbone="vgg_small", stride=32)
  return model, narrow.random_variables(model)


def test_the_file_says_what_the_classes_are(tmp_path):
  session = exported(tmp_path, *small_network())
  properties = session.get_modelmeta().custom_metadata_map
  assert json.loads(properties["class_names"]) == ["class 0", "class 1"]
  assert json.loads(properties["palette"]) == [[0, 1, 2], [3, 4, 5]]
  assert float(properties["resize"]) == 0.5


def test_a_run_is_exported(tmp_path, capsys):
  picture = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
  workdir = random_runs.save(
    tmp_path / "run",
    picture,
    names=("ground", "water"),
    palette=np.array([[10, 20, 30], [0, 0, 250]], np.uint8),
    resize=0.5,
    step=4,
  )
  out = tmp_path / "network.onnx"
  export.main(
    ["--workdir", str(workdir), "--out", str(out), "--format", "onnx"]
  )
  printed = capsys.readouterr().out
  assert "2 classes" in printed
  assert "resized by 0.5" in printed
  network = fcn.runs.load(workdir, "best")
  session = onnxruntime.InferenceSession(out)
  (classes,) = session.run(["classes"], {"images": picture[None]})
  expected = fcn.inference.predict(
    network.model, network.variables, picture[None]
  )
  assert np.mean(classes == np.asarray(expected)) > 0.999
