"""The package's build hook: compiles the native step where a C compiler is at hand.

Without one the package is built all the same, and trains with PyTorch alone.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "src/twofold/nn/native"


class NativeBuildHook(BuildHookInterface):
    """Puts the compiled library into the wheel, or next to the sources of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say in the wheel's name what it is for."""
        build = _load(Path(self.root, _FOLDER, "build.py"))
        try:
            library = build.compile_library()
        except build.NoCompilerError as error:
            self.app.display_warning(
                f"twofold's native step was not compiled: {error}. Training will use PyTorch alone."
            )
            return
        self.app.display_info("twofold's native step was compiled.")
        build_data["artifacts"].append(f"/{_FOLDER}/{library.name}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("twofold_native_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
