import jax
import jax.numpy as jnp
import pytest

from fcn_jax import losses
from fcn_jax import sampling
from fcn_jax import types

pytestmark = pytest.mark.slow


def lowered(form, platform, sampler, num_classes=21, stride=8):
  """The program of value and gradient of the loss, as text."""
  loss = losses.make(sampler=sampler, form=form)

  def loss_of(scores, labels, key):
    score_map = types.ScoreMap(
      scores, stride, (stride - 1) / 2, (512, 512), "clamp"
    )
    return loss(key, score_map, labels).loss

  arguments = (
    jax.ShapeDtypeStruct(
      (4, 512 // stride, 512 // stride, num_classes), jnp.float32
    ),
    jax.ShapeDtypeStruct((4, 512, 512), jnp.int32),
    jax.eval_shape(lambda: jax.random.key(0)),
  )
  traced = jax.jit(jax.value_and_grad(loss_of)).trace(*arguments)
  return traced.lower(lowering_platforms=(platform,)).as_text()


WHOLE = sampling.whole_image()
PLACES = sampling.places(rate=1 / 16)
BLOCKS = sampling.bernoulli(rate=1 / 8)
PIXELS = sampling.bernoulli(rate=0.05, unit="pixel")


@pytest.mark.parametrize(
  "platform, sampler, num_classes, form",
  [
    ("cpu", WHOLE, 21, "blocks"),
    ("cpu", PLACES, 21, "places"),
    ("cpu", BLOCKS, 150, "blocks"),
    ("cpu", PIXELS, 21, "pixels"),
    ("cpu", sampling.bernoulli(rate=0.9, unit="pixel"), 21, "blocks"),
    ("tpu", WHOLE, 21, "strips"),
    ("tpu", PLACES, 150, "places"),
    ("tpu", PIXELS, 21, "strips"),
    ("cuda", WHOLE, 21, "logits"),
    ("cuda", PLACES, 21, "places"),
    ("cuda", BLOCKS, 150, "blocks"),
    # All logits of so many classes do not fit.
    ("cuda", WHOLE, 5000, "strips"),
  ],
)
def test_the_form_is_chosen_for_the_device_of_the_program(
  platform, sampler, num_classes, form
):
  # This process has a CPU only.
  chosen = lowered("auto", platform, sampler, num_classes)
  if form == "logits":
    # As one sweep, and so not the text of the form "logits".
    assert "stablehlo.while" not in chosen
    return
  assert chosen == lowered(form, platform, sampler, num_classes)


def test_single_pixels_are_listed_where_blocks_are_small():
  sampler = sampling.bernoulli(rate=0.25, unit="pixel")
  for stride, form in ((4, "pixels"), (8, "blocks")):
    chosen, expected = (
      lowered(name, "cpu", sampler, stride=stride) for name in ("auto", form)
    )
    assert chosen == expected


def test_sampled_pixels_are_drawn_for_the_device_of_the_program():
  # On a CPU from gaps, whose sums are a scan.
  draw = PIXELS.draw
  arguments = (
    jax.eval_shape(lambda: jax.random.key(0)),
    jax.ShapeDtypeStruct((1, 64, 64), jnp.int32),
  )
  texts = {
    platform: jax.jit(draw)
    .trace(*arguments)
    .lower(lowering_platforms=(platform,))
    .as_text()
    for platform in ("cpu", "tpu", "cuda")
  }
  assert "scatter" in texts["cpu"]
  assert "scatter" not in texts["tpu"] + texts["cuda"]
