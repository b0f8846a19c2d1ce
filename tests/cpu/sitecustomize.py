"""Another CPU: with this folder on PYTHONPATH it has native bfloat16 if MIXER_TEST_PRECISION is bf16, none if fp32.

Every Python imports this module when it starts: the tests' own processes, the commands that they start, and the kernels
of the chapters. So `precision="auto"` is the same in all of them. `make test PRECISION=fp32` sets both variables.
"""

import importlib.abc
import importlib.machinery
import os
import sys

IS_NATIVE = {"bf16": True, "fp32": False}[os.environ["MIXER_TEST_PRECISION"]]


class Probe(importlib.abc.MetaPathFinder):
    """Finds torch.cpu as always, and changes what it answers once it is loaded: importing torch here takes seconds."""

    def find_spec(self, name, path, target=None):
        if name != "torch.cpu":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            module._is_amx_tile_supported = module._is_avx512_bf16_supported = lambda: IS_NATIVE

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, Probe())
