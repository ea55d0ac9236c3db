import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax import data
from fcn_jax import types
from tests.helpers import batches as made


def _take(batches, count):
  taken = list(itertools.islice(batches, count))
  return (
    np.stack([batch.images for batch in taken]),
    np.stack([batch.labels for batch in taken]),
  )


_AUGMENTATION = {
  "scale_range": (0.7, 1.5),
  "min_labelled": 0.9,
  "brightness": 0.4,
  "contrast": 0.4,
  "saturation": 0.4,
  "hue": 0.1,
  "blur_probability": 0.5,
}
# Whole pictures, which have no crop to choose.
_WHOLE = {**_AUGMENTATION, "crop_size": None, "min_labelled": 0.0}
# What small data sets need, of whole pictures and of crops.
_WARPED = {
  "aspect_range": (0.8, 1.25),
  "rotation": 30.0,
  "quarter_turns": True,
  "elastic_amplitude": 2.0,
  "elastic_spacing": 10.0,
  "gamma_range": (0.7, 1.5),
  "noise": 5.0,
  "cutout_count": 2,
  "cutout_size": 3,
}
_WHOLE_WARPED = {**_WHOLE, **_WARPED}
_ALL = {
  **_AUGMENTATION,
  **_WARPED,
  "foreground_share": 0.5,
  "copy_paste": 0.5,
  "copy_paste_classes": (1, 3),
}


def test_train_batches_have_the_shapes_and_dtypes_of_a_batch():
  batch = next(made.train(made.source(10), crop_size=(20, 9), **_AUGMENTATION))
  assert isinstance(batch, types.Batch)
  assert batch.images.shape == (4, 20, 9, 3) and batch.images.dtype == np.uint8
  assert batch.labels.shape == (4, 20, 9) and batch.labels.dtype == np.int32


@pytest.mark.parametrize(
  "options", [_AUGMENTATION, _WHOLE, _ALL, _WHOLE_WARPED]
)
def test_batches_follow_from_the_seed_whatever_the_number_of_threads(options):
  source = made.source(10)
  first = made.train(source, num_threads=1, **options)
  second = made.train(source, num_threads=3, prefetch_buffer_size=7, **options)
  for _ in range(8):
    chex.assert_trees_all_equal(next(first), next(second))


def test_every_thread_has_a_place_in_the_buffer(caplog):
  batches = made.train(made.source(10), num_threads=8, prefetch_buffer_size=4)
  next(batches)
  # Grain would say that threads have nothing to do.
  assert caplog.text == ""
  options = data.Loading(num_threads=2, prefetch_buffer_size=4).read_options()
  assert options.prefetch_buffer_size == 4


@pytest.mark.parametrize(
  "options", [_AUGMENTATION, _WHOLE, _ALL, _WHOLE_WARPED]
)
@pytest.mark.parametrize("first_batch", [0, 1, 4])
def test_a_run_begins_at_any_batch_with_the_batches_from_there(
  first_batch, options
):
  source = made.source(10)
  options = {**options, "num_epochs": 2}
  expected = list(made.train(source, **options))
  batches = list(made.train(source, first_batch=first_batch, **options))
  assert len(batches) == 5 - first_batch
  chex.assert_trees_all_equal(batches, expected[first_batch:])


def test_batches_before_the_first_are_not_read():
  source = made.Counted(made.source(10))
  batches = made.train(
    source, first_batch=10**9, num_threads=1, prefetch_buffer_size=1
  )
  next(batches)
  # This batch, and the one that is made ahead.
  assert len(source.reads) <= 8


@pytest.mark.long
@pytest.mark.parametrize("options", [_WHOLE, _ALL])
def test_worker_processes_make_the_batches_of_threads(options):
  source = made.source(10)
  options = {**options, "num_epochs": 2, "first_batch": 1}
  expected = list(made.train(source, **options))
  batches = made.train(source, num_workers=2, num_threads=1, **options)
  chex.assert_trees_all_equal(list(batches), expected)
  batches.close()


def test_another_seed_gives_other_batches():
  source = made.source(10)
  images, _ = _take(made.train(source, seed=1), 3)
  others, _ = _take(made.train(source, seed=2), 3)
  assert (images != others).any()


def test_an_epoch_has_each_example_once_in_an_order_of_its_own():
  source = made.source(12)
  images, _ = _take(made.train(source, flip=False, num_epochs=3), 9)
  numbers = images[..., 0, 0, 2].reshape(3, 12)
  for epoch in numbers:
    assert sorted(epoch) == list(range(12))
  assert (numbers[0] != numbers[1]).any() and (numbers[1] != numbers[2]).any()


def test_each_epoch_augments_an_example_anew():
  source = made.source(1, height=30, width=30)
  images, _ = _take(made.train(source, batch_size=1, **_AUGMENTATION), 6)
  assert len(np.unique(images.reshape(6, -1), axis=0)) == 6


@pytest.mark.parametrize(
  "option",
  [
    {"scale_range": (0.5, 0.6)},
    {"brightness": 0.5},
    {"contrast": 0.5},
    {"saturation": 0.5},
    {"hue": 0.5},
    {"blur_probability": 1.0, "blur_sigma": (2.0, 2.0)},
    {"flip": True},
    {"aspect_range": (1.2, 1.3)},
    {"rotation": 30.0},
    {"quarter_turns": True},
    {"elastic_amplitude": 2.0},
    {"copy_paste": 1.0, "copy_paste_classes": (1,)},
    {"cutout_count": 1},
    {"gamma_range": (0.5, 0.6)},
    {"noise": 9.0},
  ],
)
def test_each_option_of_the_augmentation_has_an_effect(option):
  source = made.source(8)
  options = {"flip": False, "batch_size": 8}
  plain = next(made.train(source, **options))
  changed = next(made.train(source, **(options | option)))
  assert (plain.images != changed.images).any()


def test_enough_labels_are_looked_for_in_crops():
  source = made.source(8, height=40, width=40)
  for example in source:
    example.label[:, 15:] = types.IGNORE_LABEL
  shares = []
  for min_labelled in (0.0, 0.5):
    batches = made.train(source, min_labelled=min_labelled, num_epochs=10)
    _, labels = _take(batches, 20)
    shares.append(np.mean(labels != types.IGNORE_LABEL))
  assert shares[1] > shares[0] + 0.2


def test_whole_batches_only_come_at_the_end():
  assert len(list(made.train(made.source(10), num_epochs=1))) == 2
  assert len(list(made.train(made.source(10), num_epochs=2))) == 5


def test_image_and_label_of_an_example_stay_together():
  source = [
    data.Example(np.repeat(label[..., None], 3, axis=2), label, "")
    for label in np.random.default_rng(0).integers(
      200, size=(6, 20, 20), dtype=np.uint8
    )
  ]
  images, labels = _take(
    made.train(source, crop_size=(24, 24), num_classes=200), 4
  )
  assert labels.dtype == np.int32
  inside = labels != types.IGNORE_LABEL
  assert inside.any() and not inside.all()
  np.testing.assert_array_equal(images[..., 0][inside], labels[inside])


@pytest.mark.parametrize("process_count", [2, 4])
@pytest.mark.parametrize(
  "options", [_AUGMENTATION, _WHOLE, _ALL, _WHOLE_WARPED]
)
def test_processes_share_out_the_batches_of_one(process_count, options):
  source = made.source(10, height=40, width=160, step=40)
  options = {"num_epochs": 3, **options}
  whole = list(made.train(source, **options))
  parts = [
    list(
      made.train(
        source,
        process_index=index,
        process_count=process_count,
        **options,
      )
    )
    for index in range(process_count)
  ]
  for step, batch in enumerate(whole):
    for index in range(process_count):
      expected = jax.tree.map(
        lambda array, index=index: np.split(array, process_count)[index], batch
      )
      chex.assert_trees_all_equal(parts[index][step], expected)
  assert {len(part) for part in parts} == {len(whole)}


def test_an_iterator_resumes_at_its_state():
  source = made.source(10)
  batches = made.train(source, **_AUGMENTATION)
  _take(batches, 3)
  state = batches.get_state()
  expected = _take(batches, 3)
  resumed = made.train(source, **_AUGMENTATION)
  resumed.set_state(state)
  np.testing.assert_array_equal(_take(resumed, 3)[0], expected[0])


def test_whole_pictures_that_are_warped_keep_their_sizes():
  source = made.source(10, height=20, width=30)
  scaled = {"crop_size": None, "scale_range": (0.7, 1.5)}
  options = {**scaled, **_WARPED, "cutout_count": 0, "cutout_size": 32}
  plain = made.train(source, **scaled)
  warped = made.train(source, **options)
  has_void = False
  for _, expected, batch in zip(range(8), plain, warped, strict=False):
    np.testing.assert_array_equal(batch.valid_sizes, expected.valid_sizes)
    assert batch.images.shape == expected.images.shape
    for label, (height, width) in zip(
      batch.labels, batch.valid_sizes, strict=True
    ):
      inside = label[:height, :width] != types.IGNORE_LABEL
      has_void |= not inside.all()
      assert inside.mean() > 0.5
  assert has_void


@pytest.mark.parametrize("crop_size", [None, (60, 60)])
def test_the_aspect_is_width_by_height_and_the_area_stays(crop_size):
  label = np.zeros((60, 60), np.int32)
  label[20:40, 20:40] = 1
  source = [data.Example(np.zeros((60, 60, 3), np.uint8), label, "")]
  options = {"batch_size": 1, "aspect_range": (1.2, 1.6)}
  batches = made.train(source, crop_size=crop_size, **options)
  ratios = []
  for _, batch in zip(range(60), batches, strict=False):
    rows, columns = (batch.labels[0] == 1).nonzero()
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert width * height == pytest.approx(400, rel=0.1)
    ratios.append(width / height)
  assert 1.1 < min(ratios) < 1.3 and 1.45 < max(ratios) < 1.8


def test_warps_and_cut_outs_take_other_channels_but_colours_do_not():
  generator = np.random.default_rng(0)
  source = [
    data.Example(
      generator.normal(size=(20, 20, 4)).astype(np.float32),
      generator.integers(3, size=(20, 20, 2), dtype=np.int32),
      str(number),
    )
    for number in range(4)
  ]
  heads = {"first": 3, "second": 3}
  options = {
    name: value
    for name, value in {**_ALL, "num_classes": heads}.items()
    if name in _WARPED
    and name not in ("gamma_range", "noise")
    or name.startswith(("copy", "num"))
  }
  options["copy_paste_classes"] = (1,)
  batch = next(made.train(source, **options))
  assert batch.images.shape == (4, 8, 8, 4)
  assert batch.images.dtype == np.float32
  assert set(batch.labels) == {"first", "second"}
  for colours in ({"noise": 5.0}, {"gamma_range": (0.5, 0.9)}):
    with pytest.raises(ValueError, match=r"colours can be changed.*float32"):
      next(made.train(source, **options, **colours))


def test_half_size_training_sees_halved_labels():
  label = np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2))).astype(np.int32)
  source = [data.Example(np.zeros((4, 6, 3), np.uint8), label, "")]
  options = {"batch_size": 1, "crop_size": (2, 3), "num_classes": 6}
  batch = next(made.train(source, resize_factor=0.5, flip=False, **options))
  np.testing.assert_array_equal(batch.labels[0], [[0, 1, 2], [3, 4, 5]])


def test_whole_pictures_are_padded_and_their_sizes_told():
  source = made.source(10)
  options = {"crop_size": None, "flip": False, "num_epochs": 1}
  numbers = []
  for batch in made.train(source, batch_size=2, **options):
    assert (
      batch.valid_sizes.shape == (2, 2) and batch.valid_sizes.dtype == np.int32
    )
    assert batch.labels.dtype == np.int32 and batch.images.dtype == np.uint8
    for image, label, (height, width) in zip(*batch, strict=True):
      number = image[0, 0, 2]
      numbers.append(number)
      example = source[number]
      assert example.label.shape == (height, width)
      np.testing.assert_array_equal(image[:height, :width], example.image)
      np.testing.assert_array_equal(label[:height, :width], example.label)
      assert (label[height:] == types.IGNORE_LABEL).all()
      assert (label[:, width:] == types.IGNORE_LABEL).all()
  assert sorted(numbers) == list(range(10))


def test_batches_of_crops_have_no_sizes():
  assert next(made.train(made.source(4))).valid_sizes is None


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("scale_range", [(1.0, 1.0), (0.5, 2.0)])
def test_a_step_is_traced_for_a_few_sizes_and_never_again(
  batch_size, scale_range
):
  generator = np.random.default_rng(0)
  source = made.blank_source(generator.integers(20, 200, size=(40, 2)))
  options = {
    "batch_size": batch_size,
    "crop_size": None,
    "scale_range": scale_range,
    "num_sizes": 3,
  }

  @jax.jit
  @chex.assert_max_traces(n=3)
  def step(batch):
    return jnp.sum(batch.labels == 0)

  shapes = []
  for batch in made.train(source, num_epochs=3, **options):
    shapes.append(batch.labels.shape)
    # Nothing of a picture is lost, and nothing but pictures counts.
    assert step(batch) == np.prod(batch.valid_sizes, axis=1).sum()
  # All sizes of the whole run are those of its first part.
  assert 1 < len(set(shapes)) <= 3
  chex.clear_trace_counter()


def test_the_order_of_whole_pictures_is_that_of_the_shuffle():
  source = made.source(10)
  options = {"batch_size": 2, "flip": False, "num_epochs": 1}
  whole = made.train(source, crop_size=None, **options)
  crops = made.train(source, **options)
  for first, second in zip(whole, crops, strict=True):
    np.testing.assert_array_equal(
      first.images[:, 0, 0, 2], second.images[:, 0, 0, 2]
    )


def test_sizes_that_are_known_spare_reading_the_source():
  source = made.Counted(made.source(6))
  image_sizes = [example.label.shape for example in source]
  options = {"crop_size": None, "num_epochs": 1, "batch_size": 1}
  batches = made.train(source, image_sizes=image_sizes, **options)
  assert source.reads == []
  assert len(list(batches)) == 6
  image_sizes[4] = (99, 99)
  with pytest.raises(ValueError, match="example_4 has 13x16 .* 99x99"):
    list(made.train(source, image_sizes=image_sizes, **options))
  with pytest.raises(ValueError, match=r"\[6, 2\].*\[5, 2\]"):
    made.train(source, image_sizes=image_sizes[:5], **options)


def test_hosts_together_have_the_batches_of_one():
  source = made.source(10, height=40, width=160, step=40)
  whole = list(made.evaluate(source, batch_size=4, num_sizes=3))
  for index in range(2):
    part = made.evaluate(
      source,
      batch_size=4,
      num_sizes=3,
      process_index=index,
      process_count=2,
    )
    for own, batch in zip(part, whole, strict=True):
      expected = jax.tree.map(
        lambda array, index=index: np.split(array, 2)[index], batch
      )
      chex.assert_trees_all_equal(own, expected)


@pytest.mark.parametrize("wrong", [-1, 5, 254, 256])
def test_a_label_outside_the_classes_is_an_error_that_names_it(wrong):
  source = made.source(6)
  source[4].label[2, 3] = wrong
  message = rf"example_4 has the label {wrong}, .*0\.\.4"
  with pytest.raises(ValueError, match=message):
    list(made.train(source, batch_size=1, num_epochs=1))
  with pytest.raises(ValueError, match=message):
    list(made.evaluate(source, batch_size=1, size=(20, 20)))


def test_void_is_no_label_outside_the_classes():
  source = made.source(4)
  source[0].label[2, 3] = types.IGNORE_LABEL
  assert len(list(made.train(source, num_epochs=1))) == 1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 0}, "batch_size .* not 0"),
    ({"batch_size": 11}, "batch_size 11 .* 10 examples"),
    ({"crop_size": (0, 8)}, r"crop_size .*\(0, 8\)"),
    ({"scale_range": (0.0, 1.0)}, r"scale_range .*\(0\.0, 1\.0\)"),
    ({"scale_range": (2.0, 1.0)}, r"scale_range .*\(2\.0, 1\.0\)"),
    ({"resize_factor": 0.0}, r"resize_factor .*0\.0"),
    ({"num_epochs": 0}, "num_epochs .* not 0"),
    ({"num_threads": 0}, "num_threads .* not 0"),
    ({"prefetch_buffer_size": 0}, "prefetch_buffer_size .* not 0"),
    ({"process_count": 3}, "batch_size 4 .* processes, 3"),
    ({"process_index": 1}, r"process_index .*0\.\.0.* not 1"),
    ({"min_labelled": 1.1}, r"min_labelled .* 1\.1"),
    ({"min_labelled": 0.5, "crop_size": None}, "min_labelled .* crop_size"),
    ({"brightness": -0.5}, "brightness .*-0.5"),
    ({"hue": 0.7}, r"hue .*0\.7"),
    ({"blur_probability": 2.0}, r"probability .*2\.0"),
    ({"aspect_range": (0.0, 1.0)}, r"aspect_range .*\(0\.0, 1\.0\)"),
    ({"rotation": 181.0}, r"rotation .*0\.\.180.* 181"),
    ({"elastic_amplitude": -1.0}, "elastic_amplitude .*-1"),
    (
      {"elastic_amplitude": 1.0, "elastic_spacing": 0.5},
      r"elastic_spacing .* 0\.5",
    ),
    ({"elastic_spacing": 9.0}, "elastic_spacing .* without elastic_amplitude"),
    ({"copy_paste": 1.5}, r"copy_paste .*0\.\.1.* 1\.5"),
    ({"copy_paste": 0.5}, "give copy_paste_classes"),
    (
      {"copy_paste": 0.5, "copy_paste_classes": (1,), "crop_size": None},
      "copy_paste pastes .* crop_size",
    ),
    ({"copy_paste_classes": (1,)}, "copy_paste_classes .* without copy_paste"),
    (
      {"copy_paste": 0.5, "copy_paste_classes": (1, 5)},
      "copy_paste_classes has 5, but classes are 0 to 4",
    ),
    ({"cutout_count": -1}, "cutout_count .*-1"),
    ({"cutout_count": 1, "cutout_size": 0}, "cutout_size .* 0"),
    ({"cutout_size": 9}, "cutout_size .* without cutout_count"),
    ({"gamma_range": (2.0, 1.0)}, r"gamma_range .*\(2\.0, 1\.0\)"),
    ({"noise": -1.0}, "noise .*-1"),
    ({"num_sizes": 0}, "num_sizes .* not 0"),
    ({"num_workers": -1}, "num_workers .* not -1"),
    ({"first_batch": -1}, "first_batch .* not -1"),
    ({"first_batch": 3, "num_epochs": 1}, r"first_batch .*0\.\.2.* not 3"),
  ],
)
def test_train_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    made.train(made.source(10), **options)


def test_shapes_go_through_the_whole_pipeline(tmp_path):
  dataset = data.load("shapes/tiny", split="train", prepared_dir=tmp_path)
  batch = next(
    made.train(
      dataset.source,
      crop_size=(96, 96),
      num_classes=dataset.num_classes,
      **_AUGMENTATION,
    )
  )
  assert batch.images.shape == (4, 96, 96, 3)
  assert 0 in batch.labels


def test_the_examples_of_a_batch_are_known_without_reading_them():
  # Each image is of one grey, its number.
  source = [
    data.Example(
      np.full((4, 4, 3), i, np.uint8), np.zeros((4, 4), np.int32), str(i)
    )
    for i in range(7)
  ]
  options = {"batch_size": 3, "seed": 11}
  batches = made.train(source, crop_size=4, num_classes=2, **options)
  for number, batch in zip(range(6), batches, strict=False):
    indices = data.pipeline.indices_of_batch(7, number=number, **options)
    assert indices == batch.images[:, 0, 0, 0].tolist()
