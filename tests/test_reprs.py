"""Objects show themselves in a line, and as tables in notebooks."""

import html.parser

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fcn_jax as fcn
from fcn_jax import reprs

BATCH = fcn.types.Batch(
  np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 64, 64), np.int32)
)
STATE = fcn.train.state_from(
  {"params": {"a": {"kernel": jnp.zeros((3, 3, 3, 1000))}}}, optax.adam(0.1)
)


def dataset(sizes=((8, 9), (4, 5))):
  images = [np.zeros((*size, 3), np.uint8) for size in sizes]
  labels = [np.zeros(size, np.uint8) for size in sizes]
  return fcn.data.from_arrays(images, labels, class_names=["sky", "<tree>"])


def test_arrays_are_shown_by_shape_and_dtype():
  assert repr(BATCH) == (
    "Batch(images=[2, 64, 64, 3] uint8, labels=[2, 64, 64] int32, "
    "valid_sizes=None)"
  )
  heads = BATCH._replace(labels={"a": BATCH.labels, "b": BATCH.labels})
  assert "labels={'a': [2, 64, 64] int32, 'b': [2" in repr(heads)
  assert repr(dataset().source[1]) == (
    "Example(image=[4, 5, 3] uint8, label=[4, 5] int32, name='images[1]', "
    "extras={})"
  )


def test_a_state_tells_its_step_and_how_much_it_holds():
  assert repr(STATE) == (
    "TrainState(step: 0, params: 1 arrays, 27,000 numbers, 108 KB, "
    "model_state: none, opt_state: 3 arrays, 54,001 numbers, 216 KB)"
  )


def test_nothing_is_read_that_cannot_be_read():
  assert "step: [] int32" in repr(jax.eval_shape(lambda state: state, STATE))
  shown = []
  jax.make_jaxpr(lambda state: shown.append(repr(state)))(STATE)
  assert "step: [] int32" in shown[0]
  donated = jax.tree.map(jnp.copy, STATE)
  jax.jit(lambda state: state, donate_argnums=0)(donated)
  assert "step: [] int32" in repr(donated)


def test_objects_with_a_line_of_their_own_are_the_trees_they_were():
  for tree in (BATCH, STATE):
    leaves, structure = jax.tree.flatten(tree)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(tree) and again._fields == tree._fields


def test_a_data_set_tells_length_sizes_and_classes():
  assert repr(dataset()) == (
    "Dataset(2 examples of 4..8 x 5..9 pixels (height x width), 2 classes: "
    "sky, <tree>)"
  )
  assert "4 x 5 pixels (height x width) (8 of them)" in repr(
    dataset([(4, 5)] * 20)
  )


def test_samplers_and_losses_are_shown_as_they_were_made():
  sampler = fcn.sampling.importance(
    probabilities=fcn.sampling.boundary_probabilities(
      rate=0.5, rate_elsewhere=1 / 3, distance=2
    )
  )
  assert repr(sampler) == (
    "sampling.importance(probabilities=sampling.boundary_probabilities("
    "rate=0.5, rate_elsewhere=0.333333, distance=2))"
  )
  loss = fcn.losses.make(
    fcn.losses.dice(smooth=2.0), sampler=fcn.sampling.whole_image()
  )
  assert repr(loss) == (
    "losses.make(loss=losses.dice(smooth=2), sampler=sampling.whole_image())"
  )
  own = fcn.sampling.Sampler(draw=lambda key, labels: labels)
  assert repr(own) == (
    "Sampler(draw=test_samplers_and_losses_are_shown_as_they_were_made)"
  )
  # A traced rate has no value.
  shown = []
  jax.make_jaxpr(
    lambda rate: shown.append(
      repr(fcn.sampling.bernoulli(rate=rate, max_rate=1.0))
    )
  )(0.5)
  assert shown == ["sampling.bernoulli(rate=[] float32, max_rate=1)"]


class Cells(html.parser.HTMLParser):
  """Collects the text of a page; fails where tags do not match."""

  def __init__(self, text):
    super().__init__()
    self.texts, self._open = [], []
    self.feed(text)
    assert self._open == []

  def handle_starttag(self, tag, attributes):
    self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)


def test_notebooks_show_tables():
  assert Cells(BATCH._repr_html_()).texts[:3] == [
    "Batch",
    "images",
    "[2, 64, 64, 3] uint8",
  ]
  assert Cells(STATE._repr_html_()).texts[1:3] == ["step", "0"]
  shown = dataset()._repr_html_()
  assert Cells(shown).texts[1:] == ["0", "sky", "1", "<tree>"]
  for color in dataset().palette.tolist():
    assert f"background:rgb{tuple(color)}" in shown


@pytest.mark.parametrize(
  ("num_bytes", "text"),
  [
    (0, "0 B"),
    (999, "999 B"),
    (2510, "2.51 KB"),
    (5e6, "5 MB"),
    (2e12, "2e+03 GB"),
  ],
)
def test_bytes_have_units(num_bytes, text):
  assert reprs.size(num_bytes) == text


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("sky", "sky"),
    ("a\nb\tc", r"a\nb\tc"),
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("\udcff.png", r"\udcff.png"),
    ("\u202eabc", r"\u202eabc"),
    ("空 Straße 🚗", "空 Straße 🚗"),
    ("a" * 99_990 + "b" * 10, "a" * 50 + "..." + "a" * 40 + "b" * 10),
  ],
)
def test_a_name_is_shown_on_one_short_line_that_can_be_written(name, expected):
  assert reprs.shown(name) == expected
  reprs.shown(name).encode()


def test_messages_keep_their_lines_and_paths_all_their_letters():
  message = "a\x1b[31m:\n- b\udcff\tc"
  assert reprs.printable(message) == "a\\x1b[31m:\n- b\\udcff\\tc"
  assert reprs.path("/a\nb/" + 300 * "c") == "/a\\nb/" + 300 * "c"
  assert reprs.names(["a\n", 300 * "b"]).startswith("a\\n, bbb")
  assert len(reprs.names(["a", 300 * "b"])) < 120


def test_names_end_neither_formulas_nor_cells():
  assert reprs.in_figure("$x$") == r"\$x\$"
  assert reprs.in_table("a|b\n") == r"a\|b\n"
