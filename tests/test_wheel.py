"""The wheel: with its native part where there is a compiler, and as good without."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
_OF_A_WHEEL = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore", "processor", "schemas")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a wheel is built of, without what was built of it before."""
    for name in _OF_A_WHEEL:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def wheel(source: Path, **environment: str) -> tuple[str, list[str], str]:
    """Builds one. Returns its name, the native modules in it, and what was said."""
    run = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=source, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    [built] = (source / "dist").iterdir()
    return built.name, [name for name in ZipFile(built).namelist() if name.endswith(".so")], run.stdout + run.stderr


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="there is no C compiler, or nothing of Python to compile with",
)
def test_a_wheel_has_its_native_part_and_says_what_it_is_for(source: Path) -> None:
    name, native, _ = wheel(source)
    assert f"-cp3{sys.version_info.minor}-" in name
    assert sorted(path.split(".")[0] for path in native) == [
        "processor/_buffer",
        "processor/_chain",
        "processor/_codec",
        "processor/_messages",
        "processor/decide",
        "processor/kafka/_layout",
        "processor/lookup",
        "processor/stores/_postgres",
        "processor/stores/_sqlite",
    ]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CC": "false"}, "can't be compiled"),
        ({"CC": "/not/there"}, "can't be compiled"),
        ({"TIDEMARK_NATIVE": "0"}, ""),
    ],
)
def test_a_wheel_without_its_native_part_is_for_every_python(
    source: Path, environment: dict[str, str], said: str
) -> None:
    name, native, text = wheel(source, **environment)
    assert name.endswith("-py3-none-any.whl")
    assert native == []
    assert said in text
