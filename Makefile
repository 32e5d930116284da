# phaul's two commands, `make demo` and `make test`; each does its own set-up as root on Debian, and
# the next run reuses it.

PYTHON := .venv/bin/python
COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml
export PYTHONPATH := src:.

.PHONY: demo test unit engine hosts vm search faults faults-vm lint format bench peers setup lab descriptors requirements clean

demo: setup lab ## two machines on this one, and a process moved between them
	$(PYTHON) -m examples.demo

test: setup lab ## linters, unit tests, the real CRIU natively, two hosts, faults, two guests
	$(PYTHON) -m tools.run_tests unit engine hosts faults lab vm

unit engine hosts vm: setup lab ## one of the suites
	$(PYTHON) -m tools.run_tests $@

search: setup ## the property tests with other examples each time, and more of them
	$(PYTHON) -m pytest -q -m hypothesis --hypothesis-profile=search tests/unit

faults: setup lab ## 1,000 faults in migrations, each judged; SEED=N, CASES=N, or CASE='TEXT' of a failure
	$(PYTHON) -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) $(if $(CASE),--case '$(CASE)')

faults-vm: setup lab ## power, link and processes cut at each moment of a migration between the guests
	$(PYTHON) -m tools.run_tests $@

lint: setup
	$(PYTHON) -m pytest -q tests/unit/test_lint.py

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: setup lab ## what phaul's own work costs beside the same criu commands by hand
	$(PYTHON) -m bench.overhead
	$(PYTHON) -m bench.command
	$(PYTHON) -m bench.cutover

peers: setup lab ## phaul beside criu by hand and the original's rule; hours, on a quiet machine
	$(PYTHON) -m bench.peers

setup:
	@tools/setup.sh

lab: setup
	@$(PYTHON) -m lab build

descriptors: setup ## after a change of src/phaul/criu/schema
	$(PYTHON) -m tools.generate_descriptors

requirements: ## after a change of the dependencies in pyproject.toml; needs uv
	$(COMPILE) -o requirements.txt
	$(COMPILE) --group test -c requirements.txt -o requirements-test.txt
	$(COMPILE) --group dev -c requirements-test.txt -o requirements-dev.txt

clean: ## what was built here; the lab's images stay (see lab/README.md)
	rm -rf .venv build dist
