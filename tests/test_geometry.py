import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import geometry

Layer = geometry.Layer


def vgg16(pad=100, fc6_pad=0):
  """VGG16: thirteen 3x3 convolutions, five pools, fc6, fc7."""
  backbone = []
  for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
    for i in range(depth):
      first = block == 1 and i == 0
      padding = pad if first else 1
      backbone.append(Layer(f"conv{block}_{i + 1}", 3, padding=padding))
    backbone.append(Layer(f"pool{block}", 2, 2, ceil_mode=True))
  return (*backbone, Layer("fc6", 7, padding=fc6_pad), Layer("fc7", 1))


def alexnet(pad=100):
  return (
    Layer("conv1", 11, 4, padding=pad),
    Layer("pool1", 3, 2, ceil_mode=True),
    Layer("conv2", 5, padding=2),
    Layer("pool2", 3, 2, ceil_mode=True),
    Layer("conv3", 3, padding=1),
    Layer("conv4", 3, padding=1),
    Layer("conv5", 3, padding=1),
    Layer("pool5", 3, 2, ceil_mode=True),
    Layer("fc6", 6),
    Layer("fc7", 1),
  )


@pytest.mark.parametrize(
  "stride, crops", [(32, (19,)), (16, (5, 27)), (8, (5, 9, 31))]
)
def test_crop_offsets_are_those_of_the_released_vgg_nets(stride, crops):
  assert geometry.fcn_chain(vgg16(), stride).crop_offsets() == crops


def test_crop_offset_is_that_of_the_released_alexnet():
  deconvolution = Layer("upscore", 63, 32, transposed=True)
  assert geometry.crop_offset((*alexnet(), deconvolution)) == 18


def test_the_smallest_padding_of_alexnet_is_found_with_its_own_kernel():
  final = Layer("upscore", 63, 32, transposed=True)
  padding = geometry.smallest_padding(alexnet(), 32, range(1, 300), final=final)
  chains = [
    geometry.fcn_chain(alexnet(pad), 32, final=final)
    for pad in (padding - 1, padding)
  ]
  with pytest.raises(ValueError):
    for side in range(1, 300):
      chains[0].check(side)
  for side in range(1, 300):
    chains[1].check(side)


def test_a_search_for_padding_that_cannot_succeed_ends():
  with pytest.raises(ValueError, match="no padding of conv1 is enough"):
    geometry.smallest_padding(alexnet(), 32, [500])


@pytest.mark.parametrize(
  "side, pools, fc6, upscored",
  [
    (500, (88, 44, 22), 16, (544, 560, 568)),
    (480, (85, 43, 22), 16, (544, 560, 568)),
    (360, (70, 35, 18), 12, (416, 432, 440)),
    (256, (57, 29, 15), 9, (320, 336, 344)),
  ],
)
def test_sizes_are_those_of_the_released_nets(side, pools, fc6, upscored):
  backbone = vgg16()
  sizes = {
    layer.name: geometry.output_size(backbone[: i + 1], side)
    for i, layer in enumerate(backbone)
  }
  assert (sizes["pool3"], sizes["pool4"], sizes["pool5"]) == pools
  assert sizes["fc6"] == sizes["fc7"] == fc6
  assert upscored == tuple(
    geometry.output_size(geometry.fcn_chain(backbone, stride).upscore, side)
    for stride in (32, 16, 8)
  )


def test_alexnet_has_a_grid_of_10x10_on_500_pixels():
  # Section 3.1 of the papers, without the padding of the released net.
  assert geometry.output_size(alexnet(pad=0), 500) == 10


@pytest.mark.parametrize("backbone, side", [(vgg16(), 404), (alexnet(), 355)])
def test_receptive_fields_are_those_of_table_1(backbone, side):
  assert geometry.receptive_field(backbone) == side


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_padding_by_100_covers_every_image(stride):
  chain = geometry.fcn_chain(vgg16(), stride)
  for side in range(1, 601):
    chain.check(side)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("sides, padding", [((1, 600), 97), ((33, 600), 81)])
def test_the_smallest_padding_that_covers_all_images(stride, sides, padding):
  sides = range(*sides)
  assert geometry.smallest_padding(vgg16(), stride, sides) == padding


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_half_kernel_padding_puts_cells_at_the_centres_of_their_pixels(stride):
  grid = geometry.grid(geometry.fcn_chain(vgg16(1, 3), stride).upscore)
  assert grid.stride == 1
  score = geometry.grid(vgg16(1, 3))
  assert (score.stride, score.offset) == (32, geometry.Fraction(31, 2))


def test_an_image_without_a_score_is_an_error_that_names_the_layer():
  with pytest.raises(ValueError, match="fc6 has no output: its input of 6"):
    geometry.output_size(vgg16(pad=1), 192)
  assert geometry.output_size(vgg16(pad=1), 193) == 1


def test_a_net_that_does_not_cover_the_image_is_an_error():
  # Rounded down, 15 pixels make one cell of 8.
  chain = geometry.fcn_chain((Layer("pool1", 8, 8),), 8)
  chain.check(12)
  with pytest.raises(ValueError, match="does not cover the image"):
    chain.check(15)


def test_blobs_of_different_stride_cannot_be_aligned():
  with pytest.raises(ValueError, match="upsample one of them first"):
    geometry.crop_offset(vgg16())


@pytest.mark.parametrize(
  "upsampling",
  [Layer("up", 3, 2, transposed=True), Layer("up", 2, 2, 2, transposed=True)],
  ids=["half a cell apart", "begins too late"],
)
def test_blobs_that_no_crop_aligns_are_an_error(upsampling):
  with pytest.raises(ValueError, match="no crop aligns"):
    geometry.crop_offset((Layer("pool", 2, 2), upsampling))


@pytest.mark.parametrize("stride", [1, 12, 64])
def test_a_stride_that_the_backbone_lacks_is_an_error(stride):
  with pytest.raises(ValueError, match="stride"):
    geometry.fcn_chain(vgg16(), stride)


def test_a_transposed_convolution_has_no_single_receptive_field():
  with pytest.raises(ValueError, match="transposed"):
    geometry.receptive_field((geometry.bilinear_upsampling(2),))


PROBED = (
  Layer("conv1", 3, padding=1),
  Layer("pool1", 2, 2),
  Layer("conv2", 5, padding=4, dilation=2),
  Layer("conv3", 4, 3, padding=1),
)


def probe(layers, image):
  """Runs convolutions of ones over a signal."""
  signal = image[None, :, None]
  for layer in layers:
    signal = jax.lax.conv_general_dilated(
      signal,
      jnp.ones((layer.kernel, 1, 1)),
      (layer.stride,),
      [(layer.padding, layer.padding)],
      rhs_dilation=(layer.dilation,),
      dimension_numbers=("NWC", "WIO", "NWC"),
    )
  return signal[0, :, 0]


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_the_receptive_field_is_what_the_gradient_says(num_layers):
  layers = PROBED[:num_layers]
  image = jnp.ones(80)
  jacobian = jax.jacobian(lambda image: probe(layers, image))(image)
  assert len(jacobian) == geometry.output_size(layers, len(image))
  grid = geometry.grid(layers)
  side = geometry.receptive_field(layers)
  start = geometry.receptive_field_start(layers)
  for cell in (len(jacobian) // 2, len(jacobian) // 2 + 1):
    seen = np.flatnonzero(jacobian[cell])
    assert seen[-1] - seen[0] + 1 == side
    assert seen[0] == start + cell * grid.stride
    assert (seen[0] + seen[-1]) / 2 == grid.offset + cell * grid.stride


def test_pixels_see_the_cells_between_which_they_lie():
  # Cells at 0.5, 2.5, ...: pixel 0 lies between -1.5 and 0.5.
  chain = geometry.fcn_chain((Layer("pool1", 2, 2),), 2)
  assert geometry.pixels_seen(chain, 0, 0) == (-2, 1)
  assert geometry.pixels_seen(chain, 1, 1) == (0, 3)
  assert geometry.pixels_seen(chain, 0, 3) == (-2, 5)
  # Cells on pixels: what lies on a cell needs no other one.
  chain = geometry.fcn_chain((Layer("conv1", 3, padding=1),), 1)
  assert geometry.pixels_seen(chain, 4, 6) == (3, 7)


def test_pixels_see_what_the_coarsest_scores_see_through_skips():
  # pool1 at 0.5 + 2i; pool2 at 1.5 + 4i. Pixel 0 lies between -1.5 and 0.5,
  # and these between pool2's -2.5 and 1.5, which see -4..-1 and 0..3.
  backbone = (Layer("pool1", 2, 2), Layer("pool2", 2, 2))
  chain = geometry.fcn_chain(backbone, 2, skips=("pool1",))
  assert geometry.pixels_seen(chain, 0, 0) == (-4, 3)
