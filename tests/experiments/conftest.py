import jax
import matplotlib.figure
import pytest

from tests.helpers import studies


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  # optax accumulates and averages across types; users have JAX's default.
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory):
  """Where the tiny data set is prepared, once for all studies."""
  return tmp_path_factory.mktemp("data")


@pytest.fixture
def refused(capsys):
  """Runs a command that must end with an explanation, and returns that."""

  def check(main, arguments):
    with pytest.raises(SystemExit) as stopped:
      main(arguments)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error

  return check


@pytest.fixture
def untouched():
  """Checks that nothing in a folder is changed by what is done in between."""
  before = {}

  def check(workdir):
    now = studies.snapshot(workdir)
    assert before.setdefault(workdir, now) == now

  return check


@pytest.fixture
def saved_figures(monkeypatch):
  """The figures that are saved in between."""
  figures = []
  save = matplotlib.figure.Figure.savefig

  def savefig(figure, *arguments, **options):
    figures.append(figure)
    save(figure, *arguments, **options)

  monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
  return figures
