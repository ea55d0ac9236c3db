"""What annotation tools and converters export."""

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.datasets import folder
from fcn_jax.data.files import checking

_COLORS = {"background": (0, 0, 0), "cat": (10, 20, 30), "dog": (0, 128, 0)}


def _picture(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), np.uint8)
  Image.fromarray(noise).save(path)


def _voc(root, count=6):
  """Masks in colours, a third of them background only; returns the labels."""
  labels = {}
  for number in range(count):
    name = f"a{number}"
    _picture(root / "JPEGImages" / f"{name}.jpg", number)
    label = np.zeros((20, 24), np.uint8)
    label[4:12, 5:15] = number % 3
    (root / "SegmentationClass").mkdir(exist_ok=True)
    colors = np.array(list(_COLORS.values()), np.uint8)[label]
    Image.fromarray(colors).save(root / "SegmentationClass" / f"{name}.png")
    labels[name] = label
  lines = [f"{name}:{','.join(map(str, c))}::" for name, c in _COLORS.items()]
  (root / "labelmap.txt").write_text("\n".join(["# label:color", *lines]))
  return labels


def _list(root, **names):
  lists = root / "ImageSets" / "Segmentation"
  lists.mkdir(parents=True)
  for name, members in names.items():
    (lists / f"{name}.txt").write_text("\n".join(members))


def test_the_layout_of_voc_is_read_with_its_lists_and_names(tmp_path):
  labels = _voc(tmp_path)
  _list(tmp_path, train=["a0", "a1"], val=["a2"], test=["a4"], trainval=["a1"])
  _picture(tmp_path / "JPEGImages" / "unlabelled.jpg", 9)
  found = folder.find(tmp_path)
  assert [(pair.split, pair.name) for pair in found.pairs] == [
    ("train", "train/a0"),
    ("train", "train/a1"),
    ("validation", "validation/a2"),
    ("test", "test/a4"),
  ]
  assert found.class_names == tuple(_COLORS) and not found.faults
  assert "3 files are in no list" in "\n".join(found.notes)
  for pair in found.pairs:
    label = found.decode_mask(pair.mask.read_bytes())
    np.testing.assert_array_equal(label, labels[pair.mask.stem])


def test_without_split_names_a_fifth_of_the_list_is_for_validation(tmp_path):
  labels = _voc(tmp_path)
  _list(tmp_path, default=list(labels))
  splits = [pair.split for pair in folder.find(tmp_path).pairs]
  assert splits == ["train"] * 5 + ["validation"]


def test_a_list_that_does_not_fit_is_a_fault_or_refused(tmp_path):
  _voc(tmp_path)
  _list(tmp_path, train=["a0", "a1", "gone"], val=["a2"])
  (fault,) = folder.find(tmp_path).faults
  assert fault.path.name == "gone" and "not there" in fault.reason
  (tmp_path / "ImageSets" / "Segmentation" / "test.txt").write_text("a0")
  with pytest.raises(ValueError, match="a0 is in the lists of"):
    folder.find(tmp_path)


@pytest.mark.parametrize(
  ("tool", "path", "content"),
  [
    ("COCO", "annotations/instances_train.json", {"images": []}),
    ("Roboflow", "train/_annotations.coco.json", {"images": []}),
    ("labelme", "a0.json", {"version": "5.0.1", "shapes": []}),
    ("Supervisely", "dataset/ann/a0.jpg.json", {"objects": []}),
    ("CVAT", "annotations.xml", "<?xml version='1.0'?><annotations></>"),
  ],
)
@pytest.mark.parametrize("with_images", [True, False])
def test_annotations_of_tools_are_named_with_the_page_that_helps(
  tmp_path, tool, path, content, with_images
):
  _picture(tmp_path / ("images" if with_images else ".") / "a0.jpg", 0)
  (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
  text = content if isinstance(content, str) else json.dumps(content)
  (tmp_path / path).write_text(text)
  message = (
    rf"annotations of {tool}.*{path}.*your_own_pictures.md, section From"
  )
  with pytest.raises(ValueError, match=message):
    folder.find(tmp_path)


def _coco(root):
  """Rectangles as polygons in COCO; returns the labels."""
  labels = {}
  for split, count in (("train", 3), ("val", 2)):
    content = {
      "images": [],
      "annotations": [],
      "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    for number in range(1, count + 1):
      name = f"{split}{number}"
      _picture(root / "images" / split / f"{name}.jpg", number)
      y, x, category = number, 2 * number, 1 + number % 2
      content["images"].append(
        {"id": number, "file_name": f"{name}.jpg", "width": 24, "height": 20}
      )
      content["annotations"].append(
        {
          "id": number,
          "image_id": number,
          "category_id": category,
          "iscrowd": 0,
          "area": 80,
          "bbox": [x, y, 10, 8],
          "segmentation": [[x, y, x + 10, y, x + 10, y + 8, x, y + 8]],
        }
      )
      labels[name] = np.zeros((20, 24), np.uint8)
      labels[name][y : y + 8, x : x + 10] = category
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
  return labels


def _documented_commands():
  """The commands for COCO in the documentation."""
  page = pathlib.Path(__file__).parents[3] / "docs" / "your_own_pictures.md"
  section = page.read_text().split("### From annotation tools")[1]
  block = section.split("```sh\n")[1].split("```")[0]
  return [line for line in block.splitlines() if line.startswith("datum ")]


@pytest.mark.slow
def test_the_documented_conversion_of_coco_is_read_as_it_is(tmp_path):
  datum = os.environ.get("DATUM") or shutil.which("datum")
  if datum is None:
    pytest.skip("datumaro is not installed; DATUM names its program")
  labels = _coco(tmp_path / "COCO")
  commands = _documented_commands()
  assert len(commands) == 2
  for command in commands:
    subprocess.run(
      command.replace("datum", datum, 1).split(), cwd=tmp_path, check=True
    )
  found = folder.find(tmp_path / "PICTURES")
  assert found.class_names == ("background", "cat", "dog")
  assert [pair.split for pair in found.pairs] == ["train"] * 3 + [
    "validation"
  ] * 2
  assert not checking.survey(found).faults
  for pair in found.pairs:
    label = found.decode_mask(pair.mask.read_bytes())
    np.testing.assert_array_equal(label, labels[pair.mask.stem])
