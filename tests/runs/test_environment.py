import shutil
import subprocess
import sys

import pytest

from fcn_jax.runs import environment

ASK_TWICE = """
import pathlib
from fcn_jax_copy import environment
before = environment.commit()
pathlib.Path(environment.__file__).open("a").write("# changed\\n")
print(before, environment.commit())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_process_names_the_commit_that_it_began_with(tmp_path):
  package = tmp_path / "fcn_jax_copy"
  package.mkdir()
  (package / "__init__.py").touch()
  shutil.copy(environment.__file__, package)

  def run(*command):
    return subprocess.run(
      command, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()

  author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
  run("git", "init", "-q")
  run("git", "add", ".")
  run("git", *author, "commit", "-q", "--no-gpg-sign", "-m", "one")
  head = run("git", "rev-parse", "HEAD")
  assert run(sys.executable, "-c", ASK_TWICE) == f"{head} {head}"
  # The next process sees what is there by now.
  changed = f"{head}+changes"
  assert run(sys.executable, "-c", ASK_TWICE) == f"{changed} {changed}"
