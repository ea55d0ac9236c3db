# Every target makes the environment it needs. For another Python:
#   make test PYTHON=python3.12 VENV=.venv312

PYTHON ?= python3
VENV ?= .venv
# Options for the script behind `make demo`, or for pytest: make test ARGS=-x
ARGS ?=
# How many processes share the tests.
WORKERS ?= 2
# The newest supported Python that runs: on the PATH, else one of pyenv's.
NEWEST ?= $(shell for python in python3.13 \
	$(HOME)/.pyenv/versions/3.13.*/bin/python3 python3.12 python3; do \
	$$python -c 'import sys; print(sys.executable)' 2> /dev/null && break; done)

# What `make newest` runs: a test file from most folders, in a minute.
SHORT_SET := tests/test_package.py tests/test_train.py \
	tests/sampling/test_bernoulli.py tests/losses/test_pixel_losses.py \
	tests/data/pipeline/test_training_batches.py \
	tests/runs/test_checkpoints.py tests/pretrained/formats/test_state_dicts.py

BIN := $(VENV)/bin
# -qq: errors only. Without --no-compile the modules of every package are
# compiled at once instead of those that are imported, when they are.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--no-compile
# setuptools is among the pinned requirements, so nothing else is fetched.
EDITABLE := --no-build-isolation --editable

.PHONY: help install demo test check slow long lint docs doctest parity newest \
	tpu-compile gpu-compile requirements clean

help: ## list the targets (the default)
	@echo "Usage: make <target> [PYTHON=python3.12] [VENV=.venv] [ARGS=...]"
	@awk -F ':.*## ' '/^[^#\t]*:.*## / { printf "  %-14s%s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed ## make the environment: .venv

demo: $(VENV)/.installed ## train and compare on made-up pictures: runs/demo
	$(BIN)/python -m experiments.loss_sampling demo $(ARGS)

# Tests that cannot run here skip themselves, and the summary says why.
test: $(VENV)/.installed ## run the tests, in about five minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		-m 'not slow and not long and not parity and not tpu_compile and not gpu_compile' \
		$(ARGS)

check: lint docs test slow parity tpu-compile gpu-compile newest ## what CI runs

slow: $(VENV)/.installed ## run the tests that take longer
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		-m 'slow and not long' $(ARGS)

long: $(VENV)/.installed ## run the longest tests, such as whole studies
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		-m 'long and not tpu_compile' $(ARGS)

parity: $(VENV)/.parity ## install PyTorch, OpenCV and others, compare with them
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		-m 'parity and not long' $(ARGS)

newest: $(VENV)-newest/.installed ## a few tests, newest Python and JAX here
	$(VENV)-newest/bin/python -m pytest -n $(WORKERS) --dist loadfile \
		-m 'not slow and not long' $(SHORT_SET) $(ARGS)

# XLA's compilers need no TPU and no GPU. They lie beside the environment, where
# JAX does not look for devices.
# The steps of pods take minutes: make tpu-compile ARGS='-m tpu_compile'.
tpu-compile: $(VENV)-compilers/.tpu ## compile for TPUs without one
	PYTHONPATH=$(VENV)-compilers $(BIN)/python -m pytest \
		-n $(WORKERS) -m 'tpu_compile and not long' tests/accelerators $(ARGS)

gpu-compile: $(VENV)-compilers/.gpu ## compile for GPUs without one
	PYTHONPATH=$(VENV)-compilers $(BIN)/python -m pytest \
		-n $(WORKERS) -m gpu_compile tests/accelerators $(ARGS)

lint: $(VENV)/.installed ## check the code's style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Warnings are errors: a broken link or a name that is gone ends the build.
docs: $(VENV)/.installed ## build the documentation: docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

doctest: $(VENV)/.installed ## run the examples of README and docs
	$(BIN)/python -m pytest tests/docs $(ARGS)

# The environment; a half-made one has no stamp and is completed.
$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		2> /dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2> /dev/null || echo not there)." \
			"Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Making the environment $(VENV) with $$($(PYTHON) --version):" \
		"a minute or two, once."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes --requirement requirements.txt
	@$(INSTALL) --no-deps $(EDITABLE) .
	@touch $@
	@echo "The environment $(VENV) is ready."

# The newest Python that is found, and the newest versions that setup.cfg
# allows: what people get who install the package today.
$(VENV)-newest/.installed: setup.cfg
	@echo "Making the environment $(VENV)-newest with" \
		"$$($(NEWEST) --version): a minute or two, once."
	@$(NEWEST) -m venv $(VENV)-newest
	@$(VENV)-newest/bin/python -m pip install -qq --no-compile \
		--disable-pip-version-check 'setuptools>=77.0.3' --editable '.[test]'
	@$(VENV)-newest/bin/python -c 'import jax, platform; \
		print("Python", platform.python_version(), "jax", jax.__version__)'
	@touch $@

$(VENV)-compilers/.tpu: $(VENV)/.installed
	@echo "Installing XLA's compiler for TPUs: a minute, once."
	@$(INSTALL) --no-deps --target $(VENV)-compilers libtpu==0.0.42.1
	@touch $@

$(VENV)-compilers/.gpu: $(VENV)/.installed
	@echo "Installing XLA's compiler for GPUs: a minute, once."
	@$(INSTALL) --no-deps --target $(VENV)-compilers \
		jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2
	@touch $@

$(VENV)/.parity: $(VENV)/.installed
	@echo "Installing PyTorch, OpenCV, ONNX Runtime and MONAI into $(VENV):" \
		"a minute or more, once."
	@# With hashes in them, constraints would ask for those of all packages.
	@sed -n 's/^\([A-Za-z0-9_.-]*==[^ ]*\) .*/\1/p' requirements.txt \
		> $(VENV)/constraints.txt
	@$(INSTALL) --constraint $(VENV)/constraints.txt $(EDITABLE) '.[parity]'
	@$(BIN)/python -c 'import cv2, torch; \
		print("PyTorch", torch.__version__, "OpenCV", cv2.__version__)'
	@touch $@

# The oldest Python that is supported takes the versions that suit all.
requirements: ## choose the pinned versions anew (with Python 3.11)
	$(PYTHON) -m venv --clear $(VENV)-pins
	$(VENV)-pins/bin/python -m pip install -q 'setuptools>=77.0.3' \
		--editable '.[test,docs]'
	$(VENV)-pins/bin/python -m pip freeze --all --exclude pip \
		--exclude-editable > $(VENV)-pins/pins.txt
	$(VENV)-pins/bin/python -m pip install -q uv
	head -n 4 requirements.txt > $(VENV)-pins/requirements.txt
	$(VENV)-pins/bin/uv pip compile --quiet --universal --no-deps \
		--python-version 3.11.5 --generate-hashes --no-header --no-annotate \
		$(VENV)-pins/pins.txt >> $(VENV)-pins/requirements.txt
	mv $(VENV)-pins/requirements.txt requirements.txt
	rm -rf $(VENV)-pins

clean: ## remove the environment and the caches; runs/ and data stay
	rm -rf $(VENV) $(VENV)-newest $(VENV)-compilers build dist docs/_build *.egg-info .hypothesis \
		.pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
