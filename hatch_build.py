"""Builds the wheel's native part where there is a C compiler; without one the wheel is pure Python, and slower."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "processor.kafka._layout"
_SOURCE = "processor/kafka/_layout.pyx"


class NativeBuildHook(BuildHookInterface[Any]):
    """`TIDEMARK_NATIVE=0` leaves the native part out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - as hatchling calls it
        """Compile beside the source, where an editable install finds it too."""
        if self.target_name != "wheel" or os.environ.get("TIDEMARK_NATIVE") == "0":
            return
        from setuptools.errors import BaseError, CCompilerError  # noqa: PLC0415 - for what has a native part only

        try:
            built = _compile(Path(self.root))
        except (BaseError, CCompilerError) as error:
            self.app.display_warning(f"building without the native part, which can't be compiled: {error}")
            return
        build_data["artifacts"].append(f"/{built}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(root: Path) -> Path:
    """The path of the module, from `root`. Raises setuptools' errors."""
    from Cython.Build import cythonize  # noqa: PLC0415
    from setuptools import Distribution, Extension  # noqa: PLC0415

    with TemporaryDirectory() as made:
        extension = Extension(_MODULE, [_SOURCE], extra_compile_args=["-g0"])
        modules = cythonize([extension], build_dir=made, quiet=True)
        command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.inplace, command.build_temp, command.build_lib = True, made, made
        command.ensure_finalized()
        built = Path(command.get_ext_fullpath(_MODULE)).resolve()
        # What is there may be of an earlier source.
        built.unlink(missing_ok=True)
        command.run()
    return built.relative_to(root.resolve())
