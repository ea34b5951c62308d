PYTHON ?= python3

.PHONY: core
core:
	cmake -S . -B build/dev -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON)) >/dev/null
	cmake --build build/dev -j2
	cp build/dev/_core*.so src/ami_engine/
