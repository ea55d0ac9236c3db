import concurrent.futures
import io
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fcn_jax import data
from fcn_jax import types


def _file(array, *, palette=False, **options):
  """A file object with a PNG, which TFDS stores as it is."""
  image = Image.fromarray(array)
  if palette:
    image.putpalette(np.arange(768, dtype=np.uint8)[::-1].tobytes())
  buffer = io.BytesIO()
  image.save(buffer, **{"format": "PNG", **options})
  buffer.seek(0)
  return buffer


def _pictures(split, count):
  generator = np.random.default_rng(len(split))
  return generator.integers(256, size=(count, 8, 10, 3), dtype=np.uint8)


class _Base(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What is common: split names and numbers of pictures in `counts`."""

  VERSION = tfds.core.Version("1.0.0")
  counts = {"train": 6, "validation": 3}
  values = (0, 2, 7, 255)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=self.features(), disable_shuffling=True
    )

  def features(self):
    return tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(),
        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
      }
    )

  def masks(self, split):
    shape = (self.counts[split], 8, 10)
    generator = np.random.default_rng(len(split) + 100)
    masks = generator.choice(np.array(self.values, np.uint8), size=shape)
    masks[:, 0, : len(self.values)] = self.values
    return masks

  def example(self, split, index, picture, mask):
    del split, index
    return {"image": _file(picture), "segmentation_mask": _file(mask)}

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split) for split in self.counts}

  def _generate_examples(self, split):
    pictures = _pictures(split, self.counts[split])
    pairs = zip(pictures, self.masks(split), strict=True)
    for index, (picture, mask) in enumerate(pairs):
      yield index, self.example(split, index, picture, mask)


class OxfordIiitPet(_Base, skip_registration=True):
  """The features and splits of TFDS's own data set, with few pictures."""

  VERSION = tfds.core.Version("4.0.0")
  counts = {"train": 5, "test": 3}
  values = (1, 2, 3)

  def features(self):
    return tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["Abyssinian", "pug"]),
        "species": tfds.features.ClassLabel(names=["Cat", "Dog"]),
        "file_name": tfds.features.Text(),
        "segmentation_mask": tfds.features.Image(
          shape=(None, None, 1), use_colormap=True
        ),
        "head_bbox": tfds.features.BBoxFeature(),
      }
    )

  def example(self, split, index, picture, mask):
    return {
      "image": _file(picture, format="JPEG"),
      "label": index % 2,
      "species": index % 2,
      "file_name": f"{split}_{index}.jpg",
      "segmentation_mask": _file(mask),
      "head_bbox": tfds.features.BBox(0.0, 0.0, 0.5, 0.5),
    }


class Scenes(_Base, skip_registration=True):
  """Two configurations, and masks with a palette."""

  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, version=version)
    for name, version in (("coarse", "1.0.0"), ("fine", "1.0.0"))
  ]

  def example(self, split, index, picture, mask):
    return {
      "image": _file(picture),
      "segmentation_mask": _file(mask, palette=True),
    }


def _prepare(builder, root, **options):
  builder = builder(data_dir=root, file_format="array_record", **options)
  builder.download_and_prepare()
  return builder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A folder of prepared data sets."""
  root = tmp_path_factory.mktemp("prepared")
  for builder in (OxfordIiitPet, _named("Plain")):
    _prepare(builder, root)
  for config in ("coarse", "fine"):
    _prepare(Scenes, root, config=config)
  return root


def _named(name, base=_Base, **attributes):
  """A builder class of that name; TFDS names data sets for it."""
  return type(base)(name, (base,), attributes, skip_registration=True)


def _load(name, root, split="train", **options):
  return data.load(f"tfds:{name}", split=split, prepared_dir=root, **options)


def test_pets_have_the_classes_of_the_data_set_made_of_their_files(root):
  dataset = _load("oxford_iiit_pet", root)
  assert dataset.class_names == data.datasets.oxford_pets.CLASS_NAMES
  np.testing.assert_array_equal(
    dataset.palette, data.datasets.oxford_pets.PALETTE
  )
  masks = OxfordIiitPet(data_dir=root).masks("train")
  assert len(dataset.source) == 5
  for index, (example, mask) in enumerate(
    zip(dataset.source, masks, strict=True)
  ):
    assert example.name == f"train_{index}.jpg"
    assert example.label.dtype == np.int32
    assert example.image.shape == (8, 10, 3)
    assert example.image.dtype == np.uint8
    assert np.all(example.label[mask == 1] == 1)
    assert np.all(example.label[mask == 2] == 0)
    assert np.all(example.label[mask == 3] == types.IGNORE_LABEL)


def test_values_in_their_order_become_classes_and_255_stays_void(root):
  for split in ("train", "validation"):
    dataset = _load("plain", root, split)
    assert dataset.class_names == ("class 0", "class 2", "class 7")
    assert dataset.palette.tolist() == [
      list(color)
      for color in data.datasets.palettes.distinct_palette(num_classes=3)
    ]
    pictures = _pictures(split, _Base.counts[split])
    masks = _named("Plain")(data_dir=root).masks(split)
    assert len(dataset.source) == len(pictures)
    for index, example in enumerate(dataset.source):
      np.testing.assert_array_equal(example.image, pictures[index])
      expected = {0: 0, 2: 1, 7: 2, 255: 255}
      np.testing.assert_array_equal(
        example.label, np.vectorize(expected.get)(masks[index])
      )
      assert example.name == f"{split}/{index}"


def test_masks_with_a_palette_give_indices_and_no_colours(root):
  plain = _load("plain", root).source[1]
  coloured = _load("scenes/fine", root).source[1]
  np.testing.assert_array_equal(plain.label, coloured.label)


def test_a_source_may_be_read_by_threads_and_sent_to_processes(root):
  source = _load("plain", root).source
  expected = [example.label for example in source]
  with concurrent.futures.ThreadPoolExecutor(4) as executor:
    found = list(executor.map(lambda index: source[index].label, range(6)))
  np.testing.assert_array_equal(found, expected)
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy[3].label, expected[3])
  with pytest.raises(IndexError, match=r"no example 6"):
    source[6]


def test_classes_are_found_once_in_a_process(root, tmp_path):
  copy = shutil.copytree(root / "plain", tmp_path / "plain")
  names = _load("plain", tmp_path).class_names
  for file in copy.glob("*/*-train.*"):
    file.unlink()
  assert _load("plain", tmp_path, "validation").class_names == names


def test_fingerprints_differ_between_data_sets_and_not_between_copies(
  root, tmp_path
):
  copy = shutil.copytree(root, tmp_path / "copy")
  plain = _load("plain", root).fingerprint
  assert plain == _load("plain", copy, "validation").fingerprint
  assert plain != _load("scenes/fine", root).fingerprint
  assert plain.startswith("plain/1.0.0 ")


def test_the_newest_version_is_taken_unless_one_is_given(tmp_path):
  for version in ("1.2.0", "1.10.0"):
    values = (0, 1) if version == "1.2.0" else (0, 1, 2)
    _prepare(
      _named("Plain", VERSION=tfds.core.Version(version), values=values),
      tmp_path,
    )
  assert _load("plain", tmp_path).num_classes == 3
  assert _load("plain:1.10.0", tmp_path).num_classes == 3
  assert _load("plain:1.2.0", tmp_path).num_classes == 2
  with pytest.raises(ValueError, match=r"plain:1\.3\.0 is not prepared"):
    _load("plain:1.3.0", tmp_path)


def test_a_configuration_is_found_by_itself_only_where_there_is_one(
  root, tmp_path
):
  with pytest.raises(ValueError, match=r"tfds:scenes/coarse, tfds:scenes/fine"):
    _load("scenes", root)
  assert len(_load("scenes/fine:1.0.0", root).source) == 6
  with pytest.raises(ValueError, match=r"scenes/none is not prepared"):
    _load("scenes/none", root)
  shutil.copytree(root / "scenes" / "fine", tmp_path / "scenes" / "fine")
  assert len(_load("scenes", tmp_path).source) == 6


def test_the_folder_of_prepared_data_is_that_of_tfds_by_default(
  root, monkeypatch, tmp_path
):
  monkeypatch.setenv("TFDS_DATA_DIR", str(root))
  assert len(_load("plain", None).source) == 6
  monkeypatch.delenv("TFDS_DATA_DIR")
  monkeypatch.setenv("HOME", str(tmp_path))
  with pytest.raises(ValueError, match=rf"in {tmp_path}/tensorflow_datasets"):
    _load("plain", None)


def test_what_is_not_prepared_is_an_error_that_lists_what_is(root, tmp_path):
  with pytest.raises(
    ValueError,
    match=r"tfds:voc is not prepared in .*: tfds:oxford_iiit_pet:4\.0\.0,"
    r" tfds:plain:1\.0\.0, tfds:scenes/coarse:1\.0\.0, tfds:scenes/fine",
  ):
    _load("voc", root)
  with pytest.raises(ValueError, match=r"prepared are: none"):
    _load("voc", tmp_path / "nowhere")
  assert not (tmp_path / "nowhere").exists()


def test_a_split_that_is_not_there_is_an_error_that_lists_those_that_are(root):
  with pytest.raises(
    ValueError, match=r"no split 'validation' .* has 'train', 'test'"
  ):
    _load("oxford_iiit_pet", root, "validation")


@pytest.mark.parametrize(
  "name",
  [
    *("", "../plain", "plain/..", "plain/../plain", "/plain", "plain/.."),
    *("plain/1.0.0/..", "plain:..", "plain:../1.0.0", "plain:1.0", ".hidden"),
    *("a\\b", "plain/a/b", "plain\n", "*", "pl*in", "plain:*.*.*"),
  ],
)
def test_names_that_lead_elsewhere_are_refused(root, tmp_path, name):
  # Data sets lie one folder above, too.
  shutil.copytree(root, tmp_path / "x")
  (tmp_path / "x" / "inner").mkdir()
  with pytest.raises(ValueError, match=r"not the name of a prepared data set"):
    _load(name, tmp_path / "x" / "inner")


def test_other_file_formats_are_refused_with_the_way_to_prepare_again(
  tmp_path,
):
  # TFDS writes TFRecord files only with TensorFlow, but their metadata without.
  folder = tmp_path / "plain" / "1.0.0"
  folder.mkdir(parents=True)
  builder = _named("Plain")(data_dir=tmp_path / "x", file_format="tfrecord")
  template = tfds.core.ShardedFileTemplate(
    dataset_name="plain",
    data_dir=folder,
    split="train",
    filetype_suffix="tfrecord",
  )
  split = tfds.core.SplitInfo(
    name="train", shard_lengths=[6], num_bytes=9, filename_template=template
  )
  builder.info.set_splits(tfds.core.splits.SplitDict([split]))
  builder.info.write_to_directory(folder)
  info = json.loads((folder / "dataset_info.json").read_text())
  assert info["fileFormat"] == "tfrecord"
  with pytest.raises(
    ValueError, match=r'tfrecord.*TensorFlow.*file_format="array_record"'
  ):
    _load("plain", tmp_path)


def older(name):
  return {"type": name, "content": {"shape": [2]}, "proto_cls": ""}


def as_json_feature(feature):
  return {
    "pythonClassName": "tensorflow_datasets.core.features.feature.Feature",
    "jsonFeature": {"json": json.dumps({"inner": feature})},
  }


@pytest.mark.parametrize(
  "name",
  [
    "gadget_of_test.Feature",
    "os.system",
    "gadget_of_test",
    "tensorflow_datasets_gadget.Feature",
    ".tensorflow_datasets.Feature",
    "tensorflow_datasets..gadget.Feature",
    "tensorflow_datasets.core/../../gadget.Feature",
    "tensorflow_datasets.a\ngadget_of_test.Feature",
    ["gadget_of_test.Feature"],
    "",
  ],
)
@pytest.mark.parametrize(
  "form",
  [
    lambda name: {"pythonClassName": name, "text": {}},
    lambda name: {"python_class_name": name, "text": {}},
    older,
    lambda name: as_json_feature(older(name)),
  ],
  ids=["camel case", "snake case", "older", "JSON in JSON"],
)
def test_a_feature_of_another_package_is_refused_and_not_imported(
  root, tmp_path, monkeypatch, name, form
):
  copy = shutil.copytree(root / "plain", tmp_path / "copy" / "plain")
  for module in ("gadget_of_test", "tensorflow_datasets_gadget"):
    (tmp_path / f"{module}.py").write_text(
      f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    )
  monkeypatch.syspath_prepend(tmp_path)
  file = copy / "1.0.0" / "features.json"
  features = json.loads(file.read_text())
  features["featuresDict"]["features"]["more"] = form(name)
  file.write_text(json.dumps(features))
  with pytest.raises(
    ValueError, match="features.json names the class"
  ) as error:
    _load("plain", copy.parent)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "ran").exists()
  assert not {"gadget_of_test", "tensorflow_datasets_gadget"} & {*sys.modules}


@pytest.mark.parametrize(
  "content", ["", "[" * 100_000, "{", '{"a": "\xff"}', " " * (17 << 20)]
)
def test_odd_features_cannot_be_opened(root, tmp_path, content):
  copy = shutil.copytree(root / "plain", tmp_path / "plain")
  (copy / "1.0.0" / "features.json").write_bytes(content.encode("latin-1"))
  with pytest.raises(ValueError, match="cannot be opened .features.json: "):
    _load("plain", tmp_path)


def test_damaged_metadata_are_an_error_and_do_not_hide_other_data_sets(
  root, tmp_path
):
  copy = shutil.copytree(root, tmp_path / "copy")
  (copy / "plain" / "1.0.0" / "dataset_info.json").write_text("{")
  with pytest.raises(ValueError, match=r"plain.*cannot be opened.*again"):
    _load("plain", copy)
  assert len(_load("oxford_iiit_pet", copy).source) == 5


def test_missing_and_damaged_files_are_an_error_that_names_the_folder(
  root, tmp_path
):
  copy = shutil.copytree(root, tmp_path / "copy")
  next(copy.glob("plain/*/*validation.array_record*")).unlink()
  path = next(copy.glob("oxford_iiit_pet/*/*train.array_record*"))
  path.write_bytes(path.read_bytes()[:100])
  for name, split in (("plain", "validation"), ("oxford_iiit_pet", "train")):
    source = _load(name, copy, split).source
    with pytest.raises(ValueError, match=rf"{name}/.* cannot be read .*again"):
      source[0]


def test_several_masks_are_told_apart_by_their_names_or_listed(tmp_path):
  def features(mask):
    one = tfds.features.Image(shape=(None, None, 1))
    parts = {"image": tfds.features.Image(), "depth": one, mask: one}
    return lambda self: tfds.features.FeaturesDict(parts)

  def example(mask):
    return lambda self, split, index, picture, label: {
      "image": _file(picture),
      "depth": _file(255 - label),
      mask: _file(label),
    }

  for name, mask in (("Known", "annotations"), ("Unknown", "height")):
    _prepare(
      _named(name, features=features(mask), example=example(mask)), tmp_path
    )
  assert _load("known", tmp_path).class_names[1:] == ("class 2", "class 7")
  with pytest.raises(ValueError, match=r"several, .* mask.*depth.*height"):
    _load("unknown", tmp_path)


def test_a_data_set_without_masks_is_an_error_that_lists_its_features(tmp_path):
  classification = _named(
    "Digits",
    features=lambda self: tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=2),
      }
    ),
    example=lambda self, split, index, picture, mask: {
      "image": _file(picture),
      "label": 1,
    },
  )
  _prepare(classification, tmp_path)
  with pytest.raises(
    ValueError, match=r"mask .*: image \(Image.*label \(Class"
  ):
    _load("digits", tmp_path)


def test_a_value_that_training_does_not_have_is_an_error_and_no_class(tmp_path):
  class Odd(_Base, skip_registration=True):
    def masks(self, split):
      masks = super().masks(split)
      if split == "validation":
        masks[1, 4, 4] = 9
      return masks

  _prepare(Odd, tmp_path)
  source = _load("odd", tmp_path, "validation").source
  assert source[0].label.shape == (8, 10)
  with pytest.raises(ValueError, match=r"validation/1 has the values \[9\]"):
    source[1]


def test_a_broken_mask_is_named(tmp_path):
  class Broken(_Base, skip_registration=True):
    def example(self, split, index, picture, mask):
      content = _file(mask).getvalue()
      if (split, index) == ("train", 3):
        content = content[:60]
      return {
        "image": _file(picture),
        "segmentation_mask": io.BytesIO(content),
      }

  _prepare(Broken, tmp_path)
  with pytest.raises(ValueError, match=r"mask of train/3 cannot be read"):
    _load("broken", tmp_path)


def test_what_this_package_prepared_is_not_taken_for_a_data_set_of_tfds(
  tmp_path,
):
  data.load("shapes/tiny", split="train", prepared_dir=tmp_path)
  with pytest.raises(ValueError, match=r"prepared are: none"):
    _load("shapes/tiny", tmp_path)


def test_files_and_further_features_cannot_be_asked_for(root, tmp_path):
  with pytest.raises(ValueError, match=r"leave out the folder"):
    _load("plain", root, data_dir=tmp_path)
  with pytest.raises(ValueError, match=r"no further features depth"):
    _load("plain", root, extras=["depth"])


def test_prepared_data_are_read_without_tensorflow(root, tmp_path, monkeypatch):
  # Importing a module that is None fails.
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  # In another place, where its classes are not known yet.
  shutil.copytree(root / "plain", tmp_path / "plain")
  assert _load("plain", tmp_path).source[0].image.shape == (8, 10, 3)
