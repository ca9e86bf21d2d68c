# The two commands that matter: make demo, make test. Both install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEVICE := .venv-device/bin
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: demo test test-device test-flow test-kills test-workshop test-again test-compat test-systemd test-arm64 lint docs fuzz attack soak clean

demo: .venv/installed
	$(BIN)/edge-lstm demo

# Five runs side by side on two cores: those with brokers mostly wait, the others mostly compute.
test: lint .venv-device/installed
	$(MAKE) --no-print-directory -j5 -Otarget test-workshop test-flow test-device test-again test-kills

test-device: .venv-device/installed
	$(DEVICE)/python -m pytest tests/runtime tests/device tests/hostile tests/test_plain_english.py --device-only

# Services that are killed, flooded, or get another clock: the longest tests with brokers.
KILLS := $(patsubst %,tests/flow/test_%.py,at_most_once clock_steps exactly_once exactly_once_in_parts poison stream_names)

test-kills: .venv-device/installed
	$(DEVICE)/python -m pytest $(KILLS) --device-only

test-flow: .venv-device/installed
	$(DEVICE)/python -m pytest tests/flow --device-only $(addprefix --ignore ,$(KILLS))

test-workshop: .venv/installed
	$(BIN)/python -m pytest tests/train tests/export tests/flow/test_demo.py

# What a device's tests show again, with numpy 1, tflite-runtime, orjson, pyarrow and cryptography.
AGAIN := $(addprefix tests/runtime/,backends bundle decisions messages streaming foundation/test_numbers.py \
	recordings/test_tables.py recordings/test_plain_rows.py) $(wildcard tests/runtime/test_*.py)

test-again: .venv/installed
	$(BIN)/python -m pytest $(AGAIN)

# Bundles of every kind, made here, verified by the oldest and the newest runtimes in environments of their own.
test-compat: .venv/installed .venv-compat-old/installed .venv-compat-new/installed
	rm -rf build/compat
	$(BIN)/python -m tests.compat.make_bundles build/compat
	PYTHONPATH=runtime .venv-compat-old/bin/python -m tests.compat.verify_bundles build/compat onnx tflite-runtime numpy
	PYTHONPATH=runtime .venv-compat-new/bin/python -m tests.compat.verify_bundles build/compat onnx litert numpy

.venv-compat-old/installed: constraints-compat-old.txt
	$(PYTHON) -m venv .venv-compat-old
	.venv-compat-old/bin/python -m pip install $(PIP_FLAGS) --constraint $< onnxruntime tflite-runtime numpy click
	@touch $@

.venv-compat-new/installed: constraints-compat-new.txt
	$(PYTHON) -m venv .venv-compat-new
	.venv-compat-new/bin/python -m pip install $(PIP_FLAGS) --constraint $< onnxruntime ai-edge-litert numpy click
	@touch $@

# The unit, and a deployment over a real sshd, under a real systemd that is booted beside this machine's; needs root, and
# skips with a reason elsewhere.
test-systemd: .venv-device/installed
	$(DEVICE)/python -m pytest tests/systemd --device-only -rsP

# The wheel, the bundle and the service in ARM userlands (64 and 32 bit); needs root, and skips with a reason elsewhere.
# Their roots are made once, by debootstrap, in EDGE_LSTM_ARM_ROOTS (default ~/.cache/edge-lstm/arm-roots).
test-arm64: .venv/installed
	$(BIN)/python -m pytest tests/arm -rs

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What docs/ takes from the code: the tables of keys, the help of the commands, the signatures. Tests fail where they differ.
docs: .venv/installed
	$(BIN)/python -m tests.config_tables
	$(BIN)/python -m tests.make_commands_doc
	$(BIN)/python -m tests.api_document

# A million strange messages into the decoder, and 200,000 into the whole service; not part of the tests, since it takes minutes.
fuzz: .venv/installed
	$(BIN)/python -m pip install $(PIP_FLAGS) atheris==3.0.0
	$(BIN)/python -m tests.fuzz.decoder
	$(BIN)/python -m tests.fuzz.service

# Every attack on bundles, databases and services at full size, half an hour on two cores; not part of the tests. An
# interrupted run goes on; ATTACK="--only NAME --share 0.1 --again" runs less of it, or all of it again.
attack: .venv/installed
	$(BIN)/python -m tests.attack $(ATTACK)

# The workshop: everything, with the versions of constraints.txt.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing into .venv, a few minutes on a first run" >&2
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt \
		--editable '.[onnx,tflite,tflite-runtime,fast,msgpack,metrics,broker,parquet,signing,train,tune,export,adopt-test,dev]'
	@touch $@

# A device: the wheel and a backend, no torch, numpy 2; the runtime's tests run here too.
.venv-device/installed: pyproject.toml constraints-device.txt $(shell find runtime train export device_configs -type f -not -name '*.pyc')
	$(PYTHON) -m venv .venv-device
	rm -rf .venv-device/wheel  # pip would find the wheel of an earlier version too
	$(DEVICE)/python -m pip wheel $(PIP_FLAGS) --no-deps --wheel-dir .venv-device/wheel .
	$(DEVICE)/python -m pip install $(PIP_FLAGS) --constraint constraints-device.txt --force-reinstall --no-deps \
		.venv-device/wheel/*.whl
	$(DEVICE)/python -m pip install $(PIP_FLAGS) --constraint constraints-device.txt --find-links .venv-device/wheel \
		'edge-lstm[onnx,tflite,msgpack,metrics,broker]' pytest pytest-timeout hypothesis
	@touch $@

# Ten minutes of 500 streams: memory flat, no descriptor leaked, every prediction there.
soak: .venv/installed
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv .venv-device .venv-compat-old .venv-compat-new build demo runs
