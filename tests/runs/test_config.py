"""Options of runs: their groups, and what is refused."""

import collections
import dataclasses
import pathlib

import pytest

from fcn_jax import data
from fcn_jax import runs
from fcn_jax.cli import presets
from fcn_jax.runs import config

BASE = runs.Train(run=config.Run(pathlib.Path("runs/base")))


def test_every_option_has_a_name_of_its_own():
  counts = collections.Counter(
    name
    for group in config.groups_of(BASE).values()
    for name in config.names(group)
  )
  assert [name for name, count in counts.items() if count > 1] == []
  # Epochs and validations are those of a data set, so they belong to no group.
  assert config.flat(BASE).keys() == counts.keys() | {"epochs", "patience"}


def test_the_groups_are_those_that_help_shows():
  assert config.groups_of(BASE).keys() == {
    *("data", "augmentation", "patches", "network", "loss", "optimizer", "run"),
    "processes",
  }


def test_options_are_replaced_in_whichever_group_they_are():
  changed = BASE.replace(
    dataset="folder", flip=False, stride=16, rate=0.5, steps=7, seed=3
  )
  assert changed.data == dataclasses.replace(BASE.data, dataset="folder")
  assert not changed.augmentation.flip
  assert changed.network.stride == 16
  assert changed.loss.rate == 0.5
  assert changed.optimizer.steps == 7
  assert changed.run == dataclasses.replace(BASE.run, seed=3)
  assert changed.replace(**config.flat(BASE)) == BASE
  # The first is as it was.
  assert (BASE.network.stride, BASE.run.seed) == (8, 0)


@pytest.mark.parametrize(
  "group",
  [{"augmentation": data.Augmentation()}, {"optimizer": config.Optimizer()}],
)
def test_a_group_is_no_option(group):
  # `optimizer` is the name of both.
  with pytest.raises(TypeError, match="options, not groups"):
    BASE.replace(**group)
  assert BASE.replace(optimizer="sgd").optimizer.optimizer == "sgd"


def test_an_unknown_option_is_an_error():
  with pytest.raises(TypeError, match="learning_rat"):
    BASE.replace(learning_rat=0.1)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    # Of the data.
    ({"batch_size": 0}, "batch_size is 0; it must be >= 1"),
    ({"num_threads": 0}, "num_threads is 0; it must be >= 1"),
    ({"num_workers": -1}, "num_workers is -1; it must be at least 0"),
    ({"resize": 0.0}, "resize is 0.0; it must be above 0"),
    # Of the augmentation.
    ({"crop_size": (0, 8)}, r"crop_size is \(0, 8\); give a height"),
    ({"scale_range": (2.0, 1.0)}, r"0 < smallest <= largest, not \(2.0, 1.0"),
    ({"min_labelled": 1.5}, "min_labelled must be in 0..1, not 1.5"),
    ({"crop_size": None, "min_labelled": 0.5}, "min_labelled chooses crops"),
    ({"hue": 0.9}, "hue must be .* 0.9"),
    (
      {"blur_probability": 2.0},
      "probability of a blur must be in 0..1, not 2.0",
    ),
    ({"num_sizes": 0}, "num_sizes must be at least 1, not 0"),
    # Of the network.
    ({"dropout_rate": 1.0}, "dropout_rate is 1.0; it must be in 0..1, below 1"),
    ({"auxiliary": True}, "auxiliary is True; it must be left out"),
    (
      {"architecture": "fcn_resnet", "stride": 16},
      "stride is 16; it must be 8 with architecture fcn_resnet",
    ),
    (
      {"architecture": "fcn_resnet", "padding": "caffe"},
      "padding is caffe; it must be left out with architecture fcn_resnet",
    ),
    (
      {"architecture": "fcn_resnet", "head_width": 8},
      "head_width is 8; it must be at least 1, or left out",
    ),
    ({"head_width": 0}, "head_width is 0; it must be at least 1"),
    (
      {"backbone": "fcn_basic", "head_width": 8},
      "head_width is 8; .* left out with .* fcn_basic, which have no fc6",
    ),
    (
      {"backbone": "fcn_basic", "at_once": True},
      "at_once is True; .* backbone fcn_basic",
    ),
    ({"stride": 16, "at_once": True}, "at_once is True; .* at stride 16"),
    # Of the loss.
    (
      {"sampler": "whole_image", "rate": 0.5},
      "rate is 0.5; it must be 1 with the sampler whole_image",
    ),
    ({"sampler": "bernoulli", "rate": 0.0}, "rate is 0.0; .* above 0"),
    ({"side": 0}, "side is 0; it must be at least 1"),
    ({"label_smoothing": 1.0}, "in 0..1, below 1"),
    (
      {"label_smoothing": 0.1, "pixel_loss": "focal"},
      "label_smoothing is 0.1; it must be left out with .* pixel_loss focal",
    ),
    (
      {"gamma": -1.0, "pixel_loss": "focal"},
      "gamma is -1.0; it must be at least 0",
    ),
    ({"gamma": 3.0}, "gamma is 3.0; it must be left out with"),
    ({"region_weight": 2.0}, "region_weight is 2.0; it must be left out"),
    (
      {"region_loss": "dice", "false_positives": 0.5},
      "false_positives is 0.5; it must be left out with .* region_loss dice",
    ),
    ({"rate_steps": 5}, "rate_steps is 5; it must be left out"),
    ({"min_probability": 0.1}, "min_probability is 0.1; it must be left out"),
    (
      {"sampler": "class_balanced", "min_probability": 2.0},
      "min_probability is 2.0; it must be in 0..1",
    ),
    ({"redistribute": True}, "redistribute is True; it must be left out"),
    ({"unbiased": True}, "unbiased is True; it must be left out"),
    (
      {"sampler": "class_balanced", "unbiased": True},
      "normalize is kept; it must be another for class_balanced, whose pixels "
      "have weights: expected",
    ),
    (
      {
        "sampler": "near_boundary",
        "rate_elsewhere": 0.0,
        "unbiased": True,
        "normalize": "expected",
      },
      "rate_elsewhere is 0.0; it must be in 0..1, and above 0 with near",
    ),
    ({"threshold": 0.5}, "threshold is 0.5; it must be left out"),
    ({"oversample": 4.0}, "oversample is 4.0; it must be left out"),
    ({"importance": 0.5}, "importance is 0.5; it must be left out"),
    ({"rate_elsewhere": 2.0}, "rate_elsewhere is 2.0; it must be in 0..1"),
    ({"boundary_distance": 0}, "boundary_distance is 0; it must be >= 1"),
    (
      {"sampler": "hardest", "rate": 0.5, "normalize": "expected"},
      "normalize is expected; it must be another for hardest",
    ),
    (
      {"sampler": "hardest", "rate": 0.5, "crop_size": None},
      "hardest keeps a number of pixels",
    ),
    (
      {"sampler": "uncertain", "normalize": "expected"},
      "normalize is expected; it must be another for uncertain",
    ),
    (
      {"sampler": "places", "initial_rate": 0.5},
      "initial_rate is 0.5; it must be left out with places",
    ),
    (
      {"sampler": "bernoulli", "initial_rate": 0.0},
      "initial_rate is 0.0; it must be in 0..1, above 0",
    ),
    ({"rate_steps": 0}, "rate_steps is 0; it must be >= 1"),
    (
      {"sampler": "uncertain_weighted", "rate": 0.5},
      "normalize is kept; it must be another for uncertain_weighted",
    ),
    (
      {"sampler": "harder_than"},
      "rate is 1.0; it must be in 0..1, above 0 and below 1, with harder_than",
    ),
    (
      {"sampler": "harder_than", "rate": 0.5, "threshold": -1.0},
      "threshold is -1.0; it must be at least 0",
    ),
    (
      {"sampler": "uncertain", "oversample": 0.5},
      "oversample is 0.5; it must be at least 1",
    ),
    (
      {
        "sampler": "uncertain_weighted",
        "importance": 1.0,
        "normalize": "expected",
      },
      "importance is 1.0; .* below 1 with uncertain_weighted",
    ),
    (
      {"pixel_loss": "none"},
      "pixel_loss is none; it must be another where region_loss is none",
    ),
    (
      {"region_loss": "dice", "sampler": "hardest"},
      "region_loss is dice; it must be none with hardest",
    ),
    (
      {"region_loss": "dice", "region_weight": 0.0},
      "region_weight is 0.0; it must be above 0",
    ),
    (
      {
        "region_loss": "tversky",
        "false_positives": 0.0,
        "false_negatives": 0.0,
      },
      "false_positives is 0.0; .* above 0 where false_negatives is 0",
    ),
    (
      {"class_weights": "median_frequency", "sampler": "class_weighted"},
      "class_weights is median_frequency; it must be none with the sampler",
    ),
    # Of the patches.
    (
      {"patches": "foreground"},
      "patches is foreground; it must be one of none, .* a foreground_share",
    ),
    ({"patches": "random"}, "patch_size is None; it must be given"),
    (
      {"patches": "random", "patch_size": (8, 8)},
      "patches_per_image is None; it must be at least 1 with random patches",
    ),
    (
      {"patches": "grid", "patch_size": (8, 8), "patches_per_image": 0},
      "patches_per_image is 0; it must be at least 1 with grid",
    ),
    ({"patch_size": (8, 8)}, "patch_size is .8, 8.; it must be left out"),
    ({"patches_per_image": 2}, "patches_per_image is 2; it must be left out"),
    ({"patch_stride": (2, 2)}, "patch_stride is .2, 2.; it must be left out"),
    (
      {
        "patches": "balanced",
        "patch_size": (8, 8),
        "patches_per_image": 1,
        "patch_stride": (2, 2),
      },
      "patch_stride is .2, 2.; it must be left out, or given with patches of",
    ),
    (
      {"patches": "random", "patch_size": (97, 8), "patches_per_image": 1},
      "97x8 pixels does not fit into an image of 96x96",
    ),
    (
      {"patches": "grid", "patch_size": (8, 0)},
      "8x0 pixels does not fit into an image of 96x96",
    ),
    (
      {"patches": "grid", "patch_size": (8, 8), "patch_stride": (9, 8)},
      "a stride of .9, 8. with patches of .8, 8. pixels",
    ),
    (
      {"patches": "grid", "patch_size": (48, 48), "patches_per_image": 17},
      "patches_per_image is 17, but the grid has 16 patches of .48, 48.",
    ),
    # Of the optimizer.
    ({"steps": 0}, "steps is 0; it must be >= 1"),
    ({"accumulate": 0}, "accumulate is 0; it must be >= 1"),
    ({"steps": 30, "accumulate": 31}, "accumulate is 31; .* most the 30 steps"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
    ({"weight_decay": -1.0}, "weight_decay is -1.0; it must be at least 0"),
    ({"momentum": 1.0}, "momentum is 1.0; it must be in 0..1, below 1"),
    ({"power": 0.0}, "power is 0.0; it must be above 0"),
    ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be above 0"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be in 0..1, below 1"),
    ({"steps": 20}, "warmup_steps is 20; .* less than the 20 steps"),
    # Of the run.
    ({"log_every": 0}, "log_every is 0; it must be >= 1"),
    ({"validate_every": 0}, "validate_every is 0; it must be >= 1"),
    ({"save_every": 0}, "save_every is 0; it must be >= 1"),
    ({"validation_batch": 0}, "validation_batch is 0; it must be >= 1"),
    ({"num_pictures": 0}, "num_pictures is 0; it must be >= 1"),
    ({"max_skipped": -1}, "max_skipped is -1; it must be at least 0"),
    ({"num_devices": 0}, "num_devices is 0; it must be at least 1"),
    # Of several groups.
    (
      {"architecture": "fcn_resnet", "modalities": "color_hha"},
      "modalities is color_hha; it must be another with architecture",
    ),
    (
      {"architecture": "fcn_resnet", "second_labels": "geometric"},
      "second_labels is geometric; it must be left out",
    ),
    ({"modalities": "hha"}, "inputs is None; it must be nyud_hha with"),
    (
      {"modalities": "color_hha", "at_once": True},
      "at_once is True; it must be left out with the modalities color_hha",
    ),
  ],
)
def test_an_option_out_of_range_is_refused_by_name(options, message):
  BASE.check()
  with pytest.raises(ValueError, match=message):
    BASE.replace(**options).check()


@pytest.mark.parametrize(
  ("preset", "changes", "message"),
  [
    ("nyud_fcn32s_color_d", {"inputs": None}, "inputs is None.*4 channels"),
    ("nyud_fcn32s_color", {"inputs": "nyud_color_depth"}, "for 3 channels"),
    ("nyud_fcn32s_color_hha", {"inputs": "nyud_hha"}, "left out with"),
    ("nyud_fcn32s_color_hha", {"init_hha": None}, "init_hha is None"),
    ("nyud_fcn32s_color_hha", {"init": None}, "init_hha is runs"),
    ("nyud_fcn32s_hha", {"hue": 0.1}, "hue change colours only"),
    (
      "nyud_fcn32s_hha",
      {"noise": 5.0, "gamma_range": (0.7, 1.5)},
      "gamma_range, noise change colours only",
    ),
    ("nyud_fcn32s_color_d", {"blur_probability": 0.1}, "change colours only"),
    (
      "siftflow_fcn32s",
      {"sampler": "class_weighted"},
      "second_labels is geometric",
    ),
    (
      "siftflow_fcn32s",
      {"patches": "grid", "patch_size": (64, 64)},
      "patches is grid; it must be none with second_labels",
    ),
    (
      "nyud_fcn32s_color_hha",
      {"second_labels": "geometric"},
      "second_labels is geometric",
    ),
  ],
)
def test_options_that_do_not_go_together_are_refused(preset, changes, message):
  _, good = presets.PRESETS[preset]
  good.check()
  with pytest.raises(ValueError, match=message):
    good.replace(**changes).check()


def test_a_number_of_pixels_of_a_batch_needs_a_number_of_patches():
  grid = {"patches": "grid", "patch_size": (8, 8), "crop_size": None}
  for sampler in ("fixed_count_in_batch", "class_balanced"):
    with pytest.raises(ValueError, match="the grids of whole pictures have"):
      BASE.replace(sampler=sampler, rate=0.5, **grid).check()
  BASE.replace(sampler="fixed_count", rate=0.5, **grid).check()


def test_what_unbiased_needs_is_asked_only_where_it_is_used():
  options = {"sampler": "class_balanced", "unbiased": True, "rate": 0.5}
  options |= {"crop_size": (16, 16)}
  BASE.replace(**options, rate_elsewhere=0.0, normalize="expected").check()
  BASE.replace(**options, pixel_loss="none", region_loss="dice").check()
  with pytest.raises(ValueError, match="normalize is kept"):
    BASE.replace(**options).check()


def test_a_sampler_that_keeps_a_number_of_pixels_takes_patches_of_pictures():
  options = {"sampler": "hardest", "rate": 0.5, "crop_size": None}
  patches = {"patches": "random", "patch_size": (8, 8), "patches_per_image": 1}
  BASE.replace(**options, **patches).check()


def test_accumulated_steps_make_fewer_updates():
  assert config.Optimizer(steps=10, accumulate=3).num_updates == 3
