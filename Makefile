# make demo   separate a real song excerpt with the bundled model
# make sounds hear what each training loss does with that excerpt
# make test   run all tests
# make check  lint and type-check
# make docs   the site of the documentation, in site/
# make oldest the tests of separating, the app and buckets with the oldest versions that pyproject.toml allows

PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pip, such as another index: make demo PIP_ARGS="--extra-index-url URL"
PIP_ARGS ?=
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt $(PIP_ARGS)
# Plain torch on Linux brings gigabytes of CUDA along. Without an NVIDIA GPU its CPU build is taken,
# if the index that has it answers in time, and what pip finds elsewhere if not.
CPU_INDEX = https://download.pytorch.org/whl/cpu
PROBE_SECONDS ?= 10
# Processes that run tests; all tests of a file run in the same one.
WORKERS ?= 2
# Tests start hundreds of processes, of which each would compile the package for itself.
export PYTHONDONTWRITEBYTECODE =
ASK = import sys, urllib.request as web; web.urlopen(sys.argv[1], timeout=5)
# Install packages from the index of CPU builds, where there is no GPU; else pip's own will do.
cpu_torch = if [ "$$(uname -s)" = Linux ] && ! timeout $(PROBE_SECONDS) nvidia-smi >/dev/null 2>&1 && \
  timeout $(PROBE_SECONDS) $(PYTHON) -c "$(ASK)" $(CPU_INDEX)/torch/ >/dev/null 2>&1; \
  then $(PIP) --index-url $(CPU_INDEX) $(1) || \
  echo "$(CPU_INDEX) does not have it; trying the default index ..."; fi
APT = apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq
WEB = unetsep/listen/web unetsep/app/web
OLDEST = .cache/oldest
CORE_TESTS = tests/audio tests/dsp tests/network tests/weights tests/test_api.py \
  tests/test_files.py tests/test_imports.py tests/test_separator.py tests/test_storage.py
EXTRA_TESTS = tests/app tests/library/test_remote.py --ignore tests/app/test_page.py

.PHONY: demo sounds test check docs oldest ffmpeg chromium clean

demo: $(VENV)/demo.stamp
	$(VENV)/bin/python recipes/demo.py --output demo

sounds: $(VENV)/demo.stamp
	$(VENV)/bin/python recipes/sounds.py --output sounds

test: $(VENV)/dev.stamp ffmpeg chromium
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@if command -v npx >/dev/null; then \
	  npx --yes prettier@3.10.1 --check $(foreach d,$(WEB),"$d/*.js" "$d/*.css") eslint.config.mjs && \
	  npx --yes eslint@10.15.0 $(WEB); \
	else echo "Without Node the scripts of the pages are not checked."; fi

# Strict: a dead link, a missing anchor or a name that does not exist is an error.
docs: $(VENV)/dev.stamp
	$(VENV)/bin/zensical build --clean --strict

# At first no extra is there, which also shows that separating needs none; then those of the app and
# of buckets. It takes gigabytes:
# PYTHON=python3.10 make oldest
oldest: ffmpeg
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST) --resolution lowest-direct -e .
	$(OLDEST)/bin/uv pip install --python $(OLDEST) hypothesis "pytest>=8.2" pytest-xdist
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(CORE_TESTS) $(PYTEST_ARGS)
	$(OLDEST)/bin/uv pip install --python $(OLDEST) --resolution lowest-direct -e ".[app,remote]"
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(EXTRA_TESTS) $(PYTEST_ARGS)

# musdb and stempeg call ffmpeg and ffprobe; the other programs say which samples are right. The
# package itself can do without them.
ffmpeg:
	@if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null && \
	  command -v flac >/dev/null && command -v oggdec >/dev/null && \
	  command -v opusdec >/dev/null && command -v lame >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing ffmpeg and other decoders ..."; \
	  $(APT) ffmpeg flac vorbis-tools opus-tools lame >/dev/null; \
	elif command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then \
	  echo "Without flac, vorbis-tools, opus-tools and lame some tests are skipped."; \
	else \
	  echo "The tests need ffmpeg and ffprobe. Run: sudo apt-get install -y ffmpeg"; exit 1; \
	fi

# The player's tests open it in a browser; without one they are skipped, except where CI is set.
chromium:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing chromium ..."; $(APT) chromium chromium-driver >/dev/null; \
	else echo "Without chromium and chromium-driver the player is not tested."; fi

# Debian's python3 may come without ensurepip; virtualenv then does what venv cannot.
$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install -q --target .cache/virtualenv virtualenv && \
	  PYTHONPATH=.cache/virtualenv $(PYTHON) -m virtualenv -q $(VENV); }

$(VENV)/demo.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing unetsep (torch is large: this takes a minute or more) ..."
	@$(call cpu_torch,torch)
	$(PIP) -e ".[ffmpeg]" stempeg
	@touch $@

$(VENV)/dev.stamp: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing unetsep and what its tests need ..."
	@$(call cpu_torch,torch torchaudio)
	$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .cache demo sounds dist build site
