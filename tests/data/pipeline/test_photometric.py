import colorsys

import numpy as np
import pytest
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter

from fcn_jax.data.pipeline import photometric


def _image(height=20, width=31, low=0, high=256, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(low, high, (height, width, 3), dtype=np.uint8)


def _grey(image):
  return image @ np.array([0.299, 0.587, 0.114])


def _clipped(image):
  return np.clip(image, 0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_each_factor_alone_is_the_formula_of_torchvision(factor):
  image = _image()
  wide = image.astype(float)
  for name, formula in {
    "brightness": factor * wide,
    "contrast": factor * wide + (1 - factor) * _grey(wide).mean(),
    "saturation": factor * wide + (1 - factor) * _grey(wide)[..., None],
  }.items():
    changed = photometric.adjust_colors(image, **{name: factor})
    assert changed.dtype == np.uint8
    np.testing.assert_allclose(changed, _clipped(formula), atol=0.51)


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_each_factor_alone_is_what_pillow_and_its_users_do(factor):
  image = _image()
  for name, enhance in {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
  }.items():
    changed = photometric.adjust_colors(image, **{name: factor})
    expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor))
    # Pillow rounds the grey values before it goes on, and cuts off after.
    np.testing.assert_allclose(changed.astype(int), expected, atol=1.51)


def test_factors_together_are_the_factors_in_order_where_nothing_is_clipped():
  image = _image(low=90, high=150)
  wide = 1.1 * image.astype(float)
  wide = 0.8 * wide + 0.2 * _grey(wide).mean()
  wide = 1.3 * wide - 0.3 * _grey(wide)[..., None]
  changed = photometric.adjust_colors(
    image, brightness=1.1, contrast=0.8, saturation=1.3
  )
  np.testing.assert_allclose(changed, wide, atol=0.51)


def test_a_turn_of_the_hue_keeps_grey_values_and_greys():
  image = _image(low=90, high=150)
  changed = photometric.adjust_colors(image, hue=0.2)
  np.testing.assert_allclose(_grey(changed), _grey(image), atol=0.51)
  assert np.abs(changed.astype(int) - image).max() > 10
  grey = np.repeat(image[..., :1], 3, axis=2)
  changed = photometric.adjust_colors(grey, hue=0.2)
  np.testing.assert_allclose(changed, grey, atol=0.51)


def test_the_hue_turns_in_the_direction_of_hsv():
  image = np.full((2, 2, 3), (150, 110, 110), np.uint8)
  for hue in (-0.15, 0.1, 0.3):
    changed = photometric.adjust_colors(image, hue=hue)[0, 0]
    turned = colorsys.rgb_to_hsv(*changed / 255.0)[0]
    difference = (turned - hue + 0.5) % 1.0 - 0.5
    assert abs(difference) < 0.08


def test_factors_of_one_and_no_turn_change_nothing():
  image = _image()
  np.testing.assert_array_equal(photometric.adjust_colors(image), image)


def test_jitter_of_no_strength_changes_nothing():
  image = _image()
  jittered = photometric.color_jitter(np.random.default_rng(0), image)
  np.testing.assert_array_equal(jittered, image)


def _jittered(count, **strengths):
  image = np.full((1, 2, 3), ((100, 100, 100), (120, 90, 90)), np.uint8)
  generator = np.random.default_rng(0)
  return np.array(
    [
      photometric.color_jitter(generator, image, **strengths)[0]
      for _ in range(count)
    ]
  )


def test_the_drawn_factors_cover_their_range_evenly():
  factors = _jittered(2000, brightness=0.4)[:, 0, 0] / 100.0
  assert factors.min() < 0.61 and factors.max() > 1.39
  assert factors.min() >= 0.6 and factors.max() <= 1.4
  assert factors.mean() == pytest.approx(1.0, abs=0.02)
  assert factors.std() == pytest.approx(0.8 / np.sqrt(12), abs=0.02)


def test_strengths_above_one_draw_no_factors_below_zero():
  factors = _jittered(500, brightness=1.5)[:, 0, 0] / 100.0
  assert factors.mean() == pytest.approx(1.25, abs=0.08)


def test_all_four_factors_are_drawn_independently():
  strengths = {"brightness": 0.2, "saturation": 0.4, "hue": 0.5}
  colours = _jittered(500, **strengths).astype(float)
  grey = _grey(colours)
  # The first pixel is grey and stays so; brightness is what moves it.
  brightness = grey[:, 0] / 100.0
  chroma = np.ptp(colours[:, 1], axis=1) / brightness
  assert abs(np.corrcoef(brightness, chroma)[0, 1]) < 0.15
  assert chroma.std() > 3.0
  # Half a turn in both directions: every channel is the largest at times.
  assert set(colours[:, 1].argmax(axis=1)) == {0, 1, 2}


def test_blurs_have_their_probability_and_their_range_of_sigmas():
  image = np.zeros((41, 41, 3), np.uint8)
  image[20, 20] = 255
  generator = np.random.default_rng(0)
  peaks = np.array(
    [
      photometric.random_blur(
        generator, image, probability=0.3, sigma_range=(1.0, 2.0)
      )[20, 20, 0]
      for _ in range(400)
    ]
  )
  assert np.mean(peaks < 255) == pytest.approx(0.3, abs=0.07)
  lowest, highest = (
    np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))[
      20, 20, 0
    ]
    for sigma in (2.0, 1.0)
  )
  blurred = peaks[peaks < 255]
  assert blurred.min() >= lowest and blurred.max() <= highest
  assert blurred.min() <= lowest + 2 and blurred.max() >= highest - 4


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_a_blur_has_the_standard_deviation_it_is_said_to_have(sigma):
  image = np.zeros((61, 61, 3), np.uint8)
  image[:, 30:] = 250
  blurred = photometric.random_blur(
    np.random.default_rng(0),
    image,
    probability=1.0,
    sigma_range=(sigma, sigma),
  )
  # The slope of a blurred edge is the kernel.
  kernel = np.diff(blurred[30, :, 0].astype(float)) / 250.0
  places = np.arange(60)
  mean = np.sum(kernel * places)
  deviation = np.sqrt(np.sum(kernel * (places - mean) ** 2))
  assert deviation == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.2])
def test_gamma_is_the_formula_of_torchvision(gamma):
  image = _image()
  changed = photometric.random_gamma(
    np.random.default_rng(0), image, gamma_range=(gamma, gamma + 1e-9)
  )
  assert changed.dtype == np.uint8
  expected = [255 * (value / 255) ** gamma for value in image.ravel().tolist()]
  np.testing.assert_allclose(changed.ravel(), expected, atol=0.501)


def test_gammas_are_uniform_in_their_range():
  image = np.full((1, 1, 3), 51, np.uint8)
  generator = np.random.default_rng(0)
  values = [
    photometric.random_gamma(generator, image, gamma_range=(0.5, 1.5))[0, 0, 0]
    for _ in range(2000)
  ]
  gammas = np.log(np.array(values) / 255) / np.log(0.2)
  assert gammas.min() == pytest.approx(0.5, abs=0.02)
  assert gammas.max() == pytest.approx(1.5, abs=0.02)
  assert gammas.mean() == pytest.approx(1.0, abs=0.03)


def test_noise_is_normal_with_a_deviation_drawn_up_to_the_largest():
  image = np.full((50, 60, 3), 128, np.uint8)
  generator = np.random.default_rng(0)
  noise = np.array(
    [
      photometric.random_noise(generator, image, noise=20.0).astype(float) - 128
      for _ in range(300)
    ]
  )
  assert abs(noise.mean()) < 0.05
  deviations = noise.std(axis=(1, 2, 3))
  assert deviations.min() < 0.5 and 19.5 < deviations.max() < 20.5
  assert deviations.mean() == pytest.approx(10.0, abs=1.0)
  loudest = noise[deviations.argmax()]
  # Normal: 68 and 95 % within one and two deviations.
  assert np.mean(np.abs(loudest) <= 20) == pytest.approx(0.69, abs=0.02)
  assert np.mean(np.abs(loudest) <= 40) == pytest.approx(0.957, abs=0.01)
  correlations = np.corrcoef(loudest.reshape(-1, 3).T)
  assert np.abs(correlations - np.eye(3)).max() < 0.06


def test_noise_does_not_wrap_around():
  image = np.zeros((50, 60, 3), np.uint8)
  image[:, 30:] = 255
  changed = photometric.random_noise(
    np.random.default_rng(0), image, noise=50.0
  )
  assert (changed != image).any()
  assert changed[:, :30].max() < 240 and changed[:, 30:].min() > 15


def test_the_picture_given_stays_as_it_was():
  image = _image()
  before = image.copy()
  generator = np.random.default_rng(0)
  photometric.color_jitter(generator, image, brightness=0.5, hue=0.5)
  photometric.random_blur(generator, image, probability=1.0)
  photometric.random_gamma(generator, image, gamma_range=(0.5, 0.6))
  photometric.random_noise(generator, image, noise=5.0)
  np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
  ("change", "options", "message"),
  [
    (photometric.color_jitter, {"brightness": -0.1}, "brightness .*-0.1"),
    (photometric.color_jitter, {"contrast": -1.0}, "contrast .*-1.0"),
    (photometric.color_jitter, {"saturation": -1.0}, "saturation .*-1.0"),
    (photometric.color_jitter, {"hue": 0.6}, "hue .*0.6"),
    (photometric.random_blur, {"probability": 1.1}, "probability .*1.1"),
    (
      photometric.random_gamma,
      {"gamma_range": (0.0, 1.0)},
      r"gamma_range .*\(0.0, 1.0\)",
    ),
    (photometric.random_noise, {"noise": -1.0}, "noise .*-1.0"),
    (
      photometric.random_blur,
      {"probability": 1.0, "sigma_range": (0.0, 1.0)},
      r"sigma .*\(0.0, 1.0\)",
    ),
  ],
)
def test_options_out_of_range_are_refused_with_their_value(
  change, options, message
):
  with pytest.raises(ValueError, match=message):
    change(np.random.default_rng(0), _image(), **options)
  with pytest.raises(ValueError, match="contrast -1"):
    photometric.adjust_colors(_image(), contrast=-1.0)
