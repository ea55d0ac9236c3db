import functools
import json

import gradient_noise
import gradient_noise_report
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import fcn_jax as fcn


def test_projections_are_products_of_pixel_gradients_and_directions():
  model = fcn.models.FCN(
    3, backbone="vgg_small", head_width=8, dropout_rate=0.0
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (1, 16, 16, 3)), jnp.uint8)
  labels = jnp.asarray(rng.integers(0, 3, (1, 16, 16)), jnp.int32)
  labels = labels.at[0, 0].set(fcn.types.IGNORE_LABEL)
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: model.init(key, images, train=False))
  params = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype),
    dict(shapes)["params"],
  )
  variables = {"params": params}
  directions = gradient_noise.random_directions(key, params, 2)
  losses, found = gradient_noise.project_gradients(
    model, variables, fcn.types.Batch(images, labels), directions
  )
  assert found.shape == (2, 1, 16, 16)
  np.testing.assert_array_equal(found[:, 0, 0], 0)

  # Compiled as quickly as XLA can.
  @functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
  )
  def gradient_at(params, row, column):
    def loss_of(params):
      score_map = model.apply({"params": params}, images, train=False)
      logits = fcn.upsampling.to_pixels(score_map)
      losses = fcn.losses.pixel_cross_entropy(logits, labels)
      return losses[0, row, column]

    return jax.value_and_grad(loss_of)(params)

  for row, column in ((1, 0), (7, 11), (15, 15)):
    loss, gradient = gradient_at(params, row, column)
    np.testing.assert_allclose(losses[0, row, column], loss, rtol=1e-4)
    for i in range(2):
      products = jax.tree.map(
        lambda g, d, i=i: np.vdot(g, d[i]), gradient, directions
      )
      np.testing.assert_allclose(
        found[i, 0, row, column],
        sum(jax.tree.leaves(products)),
        rtol=1e-3,
        atol=1e-3,
      )


def test_the_noise_is_split_into_that_of_masks_and_that_of_images():
  rng = np.random.default_rng(0)
  num_masks, num_directions, num_images = 40, 200, 60
  signal = rng.normal(0, 2.0, (1, num_directions, 1))
  of_images = rng.normal(0, 1.0, (1, num_directions, num_images))
  of_masks = rng.normal(0, 3.0, (num_masks, num_directions, num_images))
  found = gradient_noise.noise_of_sums(
    7.0 * (signal + of_images + of_masks), 7.0
  )
  np.testing.assert_allclose(found["masks"], 9.0, rtol=0.05)
  np.testing.assert_allclose(found["images"], 1.0, rtol=0.1)
  np.testing.assert_allclose(found["signal"], np.mean(signal**2), rtol=0.05)
  np.testing.assert_allclose(
    found["noise"], 10.0 / np.mean(signal**2), rtol=0.1
  )


def test_without_a_signal_or_a_pixel_there_is_no_noise_but_nan():
  rng = np.random.default_rng(0)
  sums = rng.normal(0, 1.0, (4, 300, 6))
  sums -= sums.mean(axis=-1, keepdims=True)
  found = gradient_noise.noise_of_sums(sums, 1.0)
  assert found["signal"] < 0 and np.isnan(found["noise"])
  known = gradient_noise.noise_of_sums(sums, 1.0, signal=0.5)
  np.testing.assert_allclose(
    known["noise"], (known["masks"] + known["images"]) / 0.5
  )
  empty = gradient_noise.noise_of_sums(np.zeros((4, 3, 6)), 0)
  assert all(np.isnan(value) for value in empty.values())


def test_the_correlation_is_that_of_a_loop_over_pairs():
  rng = np.random.default_rng(0)
  projections = rng.normal(size=(2, 3, 5, 6))
  valid = rng.random((3, 5, 6)) < 0.7
  projections = np.where(valid, projections, 0.0)
  found = gradient_noise.correlation_by_distance(projections, valid, 4)
  mean = projections[:, valid].mean(axis=1)
  sums, counts = np.zeros(9), np.zeros(9)
  for image in range(3):
    pixels = np.argwhere(valid[image])
    for a in pixels:
      for b in pixels:
        distance = int(np.rint(np.hypot(*(a - b))))
        for i in range(2):
          one = projections[i, image, *a] - mean[i]
          other = projections[i, image, *b] - mean[i]
          sums[distance] += one * other
          counts[distance] += 1
  expected = (sums / np.maximum(counts, 1))[:5]
  np.testing.assert_allclose(found, expected / expected[0], atol=1e-10)


def test_rates_are_compared_at_equal_images_terms_and_time():
  checkpoint = {
    "rates": {
      "1.0": {"masks": 0.0},
      "0.25": {"masks": 1.0},
    },
    "whole": {"images": 4.0},
  }
  rows = gradient_noise_report.rates_table(
    checkpoint, {"1.0": 0.2, "0.25": 0.1}
  )
  assert rows[0] == {
    "rate": 1.0, "seconds": 0.2, "images": 1.0, "terms": 1.0, "time": 1.0
  }  # fmt: skip
  np.testing.assert_allclose(
    [rows[1][key] for key in ("images", "terms", "time")],
    [1.25, 1.25 / 4, 1.25 / 2],
  )


def test_the_script_measures_and_draws(tmp_path, capsys):
  workdir = tmp_path / "run"
  options = [
    "shapes", "--dataset", "shapes/tiny",
    "--prepared-dir", str(tmp_path / "data"),
    "--workdir", str(workdir), "--crop-size", "32", "32",
    "--checkpoints", "2", "--warmup-steps", "1", "--batch-size", "2",
    "--num-images", "4", "--num-directions", "2", "--num-masks", "2",
    "--shares", "0.25", "--rates", "1", "0.25", "--rounds", "1",
  ]  # fmt: skip
  # AdamW's schedule mixes integers with floats.
  with jax.numpy_dtype_promotion("standard"):
    gradient_noise.main(options)
  printed = capsys.readouterr().out
  assert "Suggested: p =" in printed and "| class-balanced |" in printed
  assert (workdir / "table.md").read_text(encoding="utf-8") in printed
  summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
  checkpoint = summary["checkpoints"]["2"]
  assert checkpoint["correlation"][0] == 1.0
  assert 0.1 < checkpoint["samplers"]["pixels"][0]["share"] < 0.4
  assert set(summary["seconds_an_image"]) == {"1.0", "0.25"}
  with PIL.Image.open(workdir / "gradient_noise.png") as picture:
    assert min(picture.size) > 300
  with pytest.raises(SystemExit):
    gradient_noise.main(options)
  assert "already holds a run. Delete it with" in capsys.readouterr().err


@pytest.mark.parametrize(
  "options, message",
  [
    (["--checkpoints", "5", "5"], "positive and rising"),
    (["--rates", "0.5"], "with 1 in it"),
    (["--num-images", "5"], "a multiple of batch_size = 4"),
    (["--num-masks", "1"], "at least 2"),
    (["--shares", "0"], "sampling rate is 0"),
  ],
)
def test_options_out_of_range_are_errors_before_anything_is_written(
  options, message, tmp_path, capsys
):
  workdir = tmp_path / "run"
  with pytest.raises(SystemExit):
    gradient_noise.main(["shapes", "--workdir", str(workdir), *options])
  assert message in capsys.readouterr().err
  assert not workdir.exists()
