"""Puts the presets of `saved_models/` into the wheel. All else is in setup.cfg.

A checkout and an editable install find the folder beside the package, so it needs no copy there,
nor a link, which Windows and ZIP files do not have.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "tfmeta", "saved_models")
            shutil.rmtree(target, ignore_errors=True)  # A preset that was removed since.
            shutil.copytree("saved_models", target)


setup(cmdclass={"build_py": BuildWithPresets})
