"""The TFDS builder of data sets that are made of files.

Each data set is a subclass in its own module, which finds the files. This
module checks, writes and recognises them.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from fcn_jax import reprs
from fcn_jax import writing
from fcn_jax.data.files import archives
from fcn_jax.data.files import checking
from fcn_jax.data.files import decoding
from fcn_jax.data.files import listing

# Bytes of originals in one file of prepared data. TFDS's other builder would
# need TensorFlow for splits above 1 GiB.
_SHARD_SIZE = 256 << 20


class FilesBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """TFDS builder of pictures and masks in a folder, the `manual_dir`.

  PNG and JPEG pictures keep the bytes of their files; others become PNG. Masks
  become 8-bit grey PNG files with void at `types.IGNORE_LABEL`. The metadata
  record the fingerprint of the files, to recognise data made from other files,
  and the faults that were skipped.

  Attributes:
    DESCRIPTION: of the data set, a sentence.
    LAYOUT: what the folder must hold, to be read after "expected".
    ARCHIVES: archives by name, which the folder may hold in place of their
      contents.
    SPLITS: names of all splits that it can have.
    EXTRAS: further features by name.
    find: lists the files of an unpacked folder.
  """

  VERSION = tfds.core.Version("3.0.0")
  RELEASE_NOTES = {
    "2.0.0": "Common checks and recognition of files.",
    "3.0.0": "Masks are read as they are stored, or refused.",
  }

  DESCRIPTION: ClassVar[str]
  LAYOUT: ClassVar[str]
  SPLITS: ClassVar[Sequence[str]]
  ARCHIVES: ClassVar[Mapping[str, archives.Archive]] = {}
  EXTRAS: ClassVar[Mapping[str, tfds.features.FeatureConnector]] = {}
  find: ClassVar[Callable[[pathlib.Path], listing.Listing]]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=tfds.features.FeaturesDict(
        {
          # PNG or JPEG, as the file was.
          "image": tfds.features.Image(),
          "label": tfds.features.Image(
            shape=(None, None, 1), encoding_format="png"
          ),
          "name": tfds.features.Text(),
          **self.EXTRAS,
        }
      ),
      # Known once the files have been read.
      metadata=tfds.core.MetadataDict(),
      # The order of the names does not change.
      disable_shuffling=True,
    )

  def download_and_prepare(
    self,
    *,
    download_config: tfds.download.DownloadConfig | None = None,
    skip_bad: bool = False,
    **options: Any,
  ) -> None:
    """Prepares the data set as the base class does, but checks the files first.

    TFDS makes folders before it asks for the splits, but a bad source should
    leave nothing behind.

    Args:
      download_config: its `manual_dir` is the folder of the files. It is not
        needed if the data set is prepared.
      skip_bad: whether to leave out the pairs with faulty files.
      **options: as in the base class.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: something is wrong with the folder or with files in it, or
        the data set was prepared from other files.
    """
    config = download_config or tfds.download.DownloadConfig()
    source = config.manual_dir and pathlib.Path(config.manual_dir)
    # Not `is_prepared`, which logs a warning if there is no folder.
    if self.data_path.exists() and not config.download_mode.overwrite_dataset:
      if source is not None:
        self._check_same_source(source)
      self._check_skipped(skip_bad)
      return
    if source is None:
      raise ValueError(
        f"{self.name} is not prepared in {self.data_dir}; give the folder of"
        " its files (data_dir; on the command line, --data-dir or the"
        f" environment variable {self.name.upper()}_DIR): expected"
        f" {archives.expected(self.ARCHIVES, self.LAYOUT)}"
      )
    with self._unpacked(source) as folder:
      survey = checking.survey(self._find(folder))
      survey.check(skip_bad=skip_bad)
      if not survey.checked:
        raise ValueError(
          f"{self.name}: {source} holds no pictures; expected"
          f" {archives.expected(self.ARCHIVES, self.LAYOUT)}"
        )
      self._check_survey(survey)
      self._survey = survey
      self._archives = archives.fingerprint(source, self.ARCHIVES)
      with explained(self):
        super().download_and_prepare(download_config=config, **options)

  def _check_survey(self, survey: checking.Survey) -> None:
    """Raises a `ValueError` if the files are not those that were listed."""

  def _unpacked(self, source: pathlib.Path):
    return archives.unpacked(
      self.name,
      source,
      self.ARCHIVES,
      layout=self.LAYOUT,
      scratch=pathlib.Path(self.data_dir),
    )

  def _find(self, folder: pathlib.Path) -> listing.Listing:
    return type(self).find(folder)

  def _check_same_source(self, source: pathlib.Path) -> None:
    metadata = self.info.metadata
    packed = metadata["archives"]
    if packed and packed == archives.fingerprint(source, self.ARCHIVES):
      return
    with self._unpacked(source) as folder:
      found = checking.fingerprint(self._find(folder))
    if found != metadata["fingerprint"]:
      raise ValueError(
        f"{self.name} in {self.data_dir} was prepared from other files than"
        f" those now in {source}; remove {self.data_dir} to prepare it again,"
        " or give another folder for prepared data"
      )

  def _check_skipped(self, skip_bad: bool) -> None:
    faults = [
      listing.Fault(pathlib.Path(path), reason)
      for path, reason in self.info.metadata["faults"]
    ]
    if faults and not skip_bad:
      raise ValueError(listing.describe(self.name, faults))

  def _shard_iterators_per_split(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Sequence[Callable[[], Iterator]]]:
    del dl_manager
    survey = self._survey
    self.info.metadata.update(
      class_names=list(survey.listing.class_names),
      palette=[list(color) for color in survey.listing.palette],
      fingerprint=survey.fingerprint,
      archives=self._archives,
      faults=[[str(path), reason] for path, reason in survey.faults],
      masks=survey.listing.masks,
      remarks=[
        *survey.listing.mask_notes,
        *checking.describe_void(survey.listing, survey.totals),
        *checking.describe_equal(survey),
      ],
    )
    by_split: dict[str, list[checking.Checked]] = {}
    for checked in survey.checked:
      by_split.setdefault(checked.pair.split, []).append(checked)
    return {
      split: [_Shard(survey.listing, part) for part in _shards(found)]
      for split, found in by_split.items()
    }


@contextlib.contextmanager
def explained(dataset: tfds.core.DatasetBuilder) -> Iterator[None]:
  """Says in a sentence why prepared data cannot be written.

  Raises:
    OSError: in place of another error, if there is no room, or writing is not
      allowed.
  """
  try:
    yield
  except Exception as error:
    # ArrayRecord has errors of its own, without a number.
    full = getattr(error, "errno", None) in writing.NO_ROOM or any(
      os.strerror(number) in str(error) for number in writing.NO_ROOM
    )
    refused = isinstance(error, (PermissionError, writing.WriteError))
    if not full and not refused:
      raise
    reason = "there is no room" if full else "writing is not allowed"
    raise OSError(
      f"{dataset.name} cannot be prepared in {dataset.data_dir}: {reason}"
      f" ({error}); make room or give another folder for prepared data"
      " (prepared_dir; on the command line, --prepared-dir)"
    ) from error


def _shards(
  found: Sequence[checking.Checked],
) -> Iterator[Sequence[checking.Checked]]:
  part, size = [], 0
  for checked in found:
    size += checked.num_bytes
    if part and size > _SHARD_SIZE:
      yield part
      part, size = [], checked.num_bytes
    part.append(checked)
  yield part


def _read_again(path: pathlib.Path, expected: str) -> bytes:
  """The bytes of a file, if they are those that were checked."""
  try:
    content = path.read_bytes()
  except OSError:
    content = b""
  if hashlib.sha256(content).hexdigest() != expected:
    raise ValueError(
      f"{reprs.path(path)} changed while the folder was read; try again when"
      " nothing writes to the folder"
    )
  return content


class _Shard:
  """One file of prepared data; calling it starts its examples."""

  def __init__(
    self, source: listing.Listing, found: Sequence[checking.Checked]
  ):
    self._source = source
    self._found = found

  def __call__(self) -> Iterator[tuple[str, dict[str, bytes | str]]]:
    for pair, hashes in ((one.pair, one.hashes) for one in self._found):
      paths = (pair.picture, pair.mask, *pair.extras.values())
      picture, mask, *others = map(_read_again, paths, hashes)
      if not decoding.is_plain(picture):
        picture = decoding.encode_png(self._source.decode_picture(picture))
      label = self._source.decode_mask(mask)
      extras = {
        name: decoding.encode_png(self._source.decode_extras[name](content))
        for name, content in zip(pair.extras, others, strict=True)
      }
      yield (
        f"{pair.split}/{pair.name}",
        {
          "image": picture,
          "label": decoding.encode_png(label),
          "name": pair.name,
          **extras,
        },
      )
