"""Builds the wheel's native part where there is a C compiler; without one the wheel is pure Python, and slower."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_AS_THEY_STAND = ("processor/decide.py", "processor/lookup.py")
"""Compiled from their Python; how it is laid out then says the file ending in .pxd beside each."""


class NativeBuildHook(BuildHookInterface[Any]):
    """`TIDEMARK_NATIVE=0` leaves the native part out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - as hatchling calls it
        """Compile beside the sources, where an editable install finds them too."""
        if self.target_name != "wheel" or os.environ.get("TIDEMARK_NATIVE") == "0":
            return
        from setuptools.errors import BaseError, CCompilerError  # noqa: PLC0415 - for what has a native part only

        try:
            built = _compile(Path(self.root))
        except (BaseError, CCompilerError) as error:
            self.app.display_warning(f"building without the native part, which can't be compiled: {error}")
            return
        build_data["artifacts"] += [f"/{path}" for path in built]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(root: Path) -> list[Path]:
    """The paths of the modules, from `root`. Raises setuptools' errors."""
    from Cython.Build import cythonize  # noqa: PLC0415
    from setuptools import Distribution, Extension  # noqa: PLC0415

    written = sorted(path.relative_to(root) for path in root.glob("processor/**/*.pyx"))
    paths = [*map(Path, _AS_THEY_STAND), *written]
    sources = {".".join(path.with_suffix("").parts): str(path) for path in paths}
    extensions = [Extension(name, [path], extra_compile_args=["-g0"]) for name, path in sources.items()]
    with TemporaryDirectory() as made:
        # What Python's annotations say is for people and for mypy: `int` is any whole number, not C's.
        directives = {"language_level": 3, "annotation_typing": False}
        modules = cythonize(extensions, build_dir=made, quiet=True, compiler_directives=directives)
        command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.inplace, command.build_temp, command.build_lib = True, made, made
        command.ensure_finalized()
        built = [Path(command.get_ext_fullpath(name)).resolve() for name in sources]
        for path in built:
            # What is there may be of an earlier source.
            path.unlink(missing_ok=True)
        command.run()
    return [path.relative_to(root.resolve()) for path in built]
