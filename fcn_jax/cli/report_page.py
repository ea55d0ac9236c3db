"""The page of `fcn-jax report`, in HTML."""

import base64
import contextlib
import datetime
import html
import io
import json
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import PIL.Image

from fcn_jax import reprs
from fcn_jax import visualize
from fcn_jax.cli import evaluate_report
from fcn_jax.runs import config as config_lib
from fcn_jax.runs import folder
from fcn_jax.runs import records

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #e5e5e5;
  text-align: right; font-variant-numeric: tabular-nums; }
th { background: #f6f6f6; } th:first-child, td:first-child { text-align: left; }
table.text td { text-align: left; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figcaption, .note { color: #555; }
code { background: #f6f6f6; padding: .1rem .3rem; }
.scores { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.scores div { border: 1px solid #ddd; border-radius: .5rem;
  padding: .6rem 1.2rem; }
.scores b { display: block; font-size: 1.7rem; }
"""

# Names of scores in records and summaries, and their titles.
_SCORES = evaluate_report.OF_ALL
_OF_CLASSES = evaluate_report.OF_CLASSES
_PICTURES = {
  evaluate_report.CONFUSION_FILE: "Confusion matrix",
  evaluate_report.WORST_FILE: "Worst pictures, by pixel accuracy",
  evaluate_report.BEST_FILE: "Best pictures",
  evaluate_report.BANDS_FILE: "Scores in bands along boundaries",
  evaluate_report.RELIABILITY_FILE: "Calibration",
}


def make(config: config_lib.Train, workdir: pathlib.Path) -> str:
  """The page about a run.

  Args:
    config: the options of the run.
    workdir: its folder.

  Returns:
    HTML, with everything that it shows.

  Raises:
    ValueError: if a file of the run is damaged.
  """
  training, evaluations = folder.read_records(workdir)
  starts = records.read_json_lines(workdir / folder.STARTS_FILE)
  data, network = config.data, config.network
  with _complete(workdir / folder.METRICS_FILE):
    sections = [
      _validation(training, evaluations),
      _curves(training, evaluations),
    ]
  with _complete(workdir / folder.STARTS_FILE):
    begun = _starts(starts)
    sections += [_pictures(workdir), *_evaluations(workdir, starts)]
  sections += [_options(config), begun]
  name = _escaped(workdir.resolve().name)
  subject = _escaped(
    f"{network.architecture} of stride {network.stride} on {network.backbone}, "
    f"trained on {data.dataset}"
  )
  now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width">\n'
    f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    f"<h1>{name}</h1>\n<p>{subject}. "
    f'<span class="note">Written on {now} by fcn-jax report.</span></p>\n'
    + "\n".join(sections)
    + "\n</body>\n</html>\n"
  )


def _validation(
  training: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping]
) -> str:
  """The progress of the run, and its scores on the validation split."""
  if not training:
    return "<p>No step has been recorded yet.</p>"
  step, seconds = training[-1]["step"], training[-1]["seconds"]
  cards = [("steps", f"{step:,}"), ("of training", _duration(seconds))]
  if not evaluations:
    return _cards(cards) + "<p>The run has not been validated yet.</p>"
  best = max(evaluations, key=lambda one: one["mean_iu"] or 0)
  last = evaluations[-1]
  cards.insert(0, ("mean IU, best step", f"{_percent(best['mean_iu'])} %"))
  titles = [t for name, t in _SCORES.items() if name in last]
  both = [("best", best), ("last", last)]
  return "".join(
    [
      _cards(cards),
      "<h2>Validation during training</h2>",
      _table(
        ["checkpoint", "step", *titles],
        (
          [title, f"{one['step']:,}"]
          + [_percent(one[name]) for name in _SCORES if name in one]
          for title, one in both
        ),
      ),
      _table(
        ["IU of a class", "best", "last"],
        (
          [name, _percent(best["class_iu"].get(name)), _percent(iu)]
          for name, iu in last["class_iu"].items()
        ),
      ),
      '<p class="note">In percent, at the size of training.</p>',
    ]
  )


def _curves(training: Sequence, evaluations: Sequence) -> str:
  if not training:
    return ""
  buffer = io.BytesIO()
  visualize.training_curves(training, evaluations).savefig(
    buffer, format="png", dpi=130
  )
  return f"<h2>Curves</h2>{_figure(buffer.getvalue(), 'Curves of the run')}"


def _pictures(workdir: pathlib.Path) -> str:
  file = workdir / folder.PREDICTIONS_FILE
  if not file.exists():
    return ""
  picture = _image(file, "Pictures, labels and predictions")
  return f"<h2>Pictures of the validation split</h2>{picture}"


def _evaluations(
  workdir: pathlib.Path, starts: Sequence[Mapping[str, Any]]
) -> list[str]:
  """A section for each evaluation of this run."""
  begin = starts[0]["time"] if starts else ""
  sections = []
  for file in sorted(workdir.glob(f"*/{evaluate_report.SUMMARY_FILE}")):
    written = datetime.datetime.fromtimestamp(
      file.stat().st_mtime, datetime.UTC
    ).isoformat(timespec="seconds")
    # It may be of a run that was here before.
    if written >= begin:
      sections.append(_evaluation(file))
  if not sections:
    command = f"fcn-jax evaluate --workdir {shlex.quote(str(workdir))}"
    sections.append(
      "<h2>Evaluation</h2><p>The run has not been evaluated. "
      f"<code>{_escaped(command)}</code> scores it at the native size of "
      "the pictures; a new report then has the confusion matrix, the worst "
      "pictures and the best.</p>"
    )
  return sections


@contextlib.contextmanager
def _complete(file: pathlib.Path) -> Iterator[None]:
  """Says which file is damaged if something in it is missing or another."""
  try:
    yield
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise ValueError(
      f"{file} is damaged ({type(error).__name__}: {str(error)[:80]}): repair"
      " it, or remove the damaged lines."
    ) from error


def _evaluation(file: pathlib.Path) -> str:
  try:
    summary = records.read_json(file)
  except ValueError as error:
    raise ValueError(f"{error} Or evaluate again with --overwrite.") from error
  with _complete(file):
    return _of_summary(file, summary)


def _of_summary(file: pathlib.Path, summary: Mapping[str, Any]) -> str:
  there = [name for name in _SCORES if name in summary]
  of_classes = [n for n in _OF_CLASSES if f"class_{n}" in summary]
  names = list(summary["class_iu"])
  facts = (
    f"{summary['num_images']} images of the split {summary['split']} at their "
    f"native size; step {summary['step']}, scales "
    f"{', '.join(f'{scale:g}' for scale in summary['scales'])}"
    + ", and mirrored" * summary["flip"]
    # Older summaries do not name turns.
    + ", and turned" * summary.get("quarter_turns", False)
  )
  return "".join(
    [
      f"<h2>Evaluation: {_escaped(file.parent.name)}</h2>",
      f"<p>{_escaped(facts)}.</p>",
      _table(
        ["split", *(_SCORES[name] for name in there)],
        [[summary["split"], *(_percent(summary[name]) for name in there)]],
      ),
      _table(
        ["class", *(_OF_CLASSES[name] for name in of_classes)],
        (
          [one, *(_percent(summary[f"class_{n}"][one]) for n in of_classes)]
          for one in names
        ),
      ),
      *(
        f"<h3>{title}</h3>{_image(file.parent / name, title)}"
        for name, title in _PICTURES.items()
        if (file.parent / name).exists()
      ),
    ]
  )


def _options(config: config_lib.Train) -> str:
  rows = [
    [name, value if isinstance(value, str) else json.dumps(value, default=str)]
    for name, value in config_lib.flat(config).items()
  ]
  return (
    "<h2>Options</h2><details><summary>All options of the run</summary>"
    f"{_table(['option', 'value'], rows, css='text')}</details>"
  )


def _starts(starts: Sequence[Mapping[str, Any]]) -> str:
  if not starts:
    return "<h2>Starts</h2><p>The run has not been started.</p>"
  rows = [
    [
      str(start["start"] + 1),
      start["time"],
      str(start["from_step"]),
      start["device"],
      start["commit"] or "unknown",
      shlex.join(start["command"]),
    ]
    for start in starts
  ]
  last = starts[-1]
  versions = {"python": last["python"], **last["versions"]}
  return "".join(
    [
      "<h2>Starts</h2>",
      _table(
        ["start", "time", "from step", "devices", "commit", "command"],
        rows,
        css="text",
      ),
      "<h2>Versions at the last start</h2>",
      _table(["package", "version"], versions.items(), css="text"),
      f'<p class="note">{html.escape(last["platform"])}</p>',
    ]
  )


def _table(
  head: Iterable[str], rows: Iterable[Iterable[str]], *, css: str = ""
) -> str:
  cells = "".join(f"<th>{html.escape(title)}</th>" for title in head)
  body = "\n".join(
    "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>"
    for row in rows
  )
  return (
    f'<table class="{css}"><thead><tr>{cells}</tr></thead>\n'
    f"<tbody>{body}</tbody></table>\n"
  )


def _escaped(text: Any) -> str:
  return html.escape(reprs.shown(text, max_length=None))


def _cards(values: Iterable[tuple[str, str]]) -> str:
  cards = "".join(
    f"<div><b>{html.escape(value)}</b>{html.escape(title)}</div>"
    for title, value in values
  )
  return f'<div class="scores">{cards}</div>\n'


def _image(file: pathlib.Path, description: str) -> str:
  """The picture of a PNG file; a `ValueError` if that is damaged."""
  png = file.read_bytes()
  try:
    with PIL.Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
      # Its checksums.
      picture.verify()
  # Decoders raise errors of any type.
  except Exception as error:
    raise ValueError(
      f"{file} is damaged ({error}): bring it back from a copy, make it again, "
      "or remove it."
    ) from error
  return _figure(png, description)


def _figure(png: bytes, description: str) -> str:
  data = base64.b64encode(png).decode()
  return (
    f'<figure><img alt="{html.escape(description)}" '
    f'src="data:image/png;base64,{data}"></figure>\n'
  )


def _percent(value: float | None) -> str:
  # None stands for NaN: a class that does not occur.
  return "-" if value is None else f"{100 * value:.1f}"


def _duration(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
