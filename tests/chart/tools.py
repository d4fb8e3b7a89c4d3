"""The programs that look at the chart, and the schemas they look with: built from their Go modules, on first use.

All of it is kept in the user's cache, under a name that carries the version.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers import cache_folder

KUBERNETES = "1.36.3"

_BUILD_S = 1_200
_RUN_S = 300


class CannotBuild(Exception):
    """This machine lacks what building needs; the text says what."""


@dataclass(frozen=True)
class Program:
    """A command of a Go module. `replaces` is what its own go.mod replaces, which does not count for who imports it."""

    module: str
    version: str
    package: str
    replaces: str = ""


PROGRAMS = {
    "helm3": Program("helm.sh/helm/v3", "v3.22.0", "cmd/helm"),
    "helm4": Program("helm.sh/helm/v4", "v4.3.1", "cmd/helm"),
    "helm-docs": Program("github.com/norwoodj/helm-docs", "v1.14.2", "cmd/helm-docs"),
    "helm-unittest": Program(
        "github.com/helm-unittest/helm-unittest",
        "v1.1.2",
        "cmd/helm-unittest",
        "github.com/vmware-labs/yaml-jsonpath=github.com/helm-unittest/yaml-jsonpath@v0.4.0",
    ),
    "docker-compose": Program("github.com/docker/compose/v2", "v2.40.3", "cmd"),
    "kubeconform": Program("github.com/yannh/kubeconform", "v0.8.0", "cmd/kubeconform"),
    "promtool": Program("github.com/prometheus/prometheus", "v0.305.0", "cmd/promtool"),
}

_CRDS = {
    ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases"): (
        "keda.sh_scaledobjects.yaml",
        "keda.sh_triggerauthentications.yaml",
    ),
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", "example/prometheus-operator-crd"): (
        "monitoring.coreos.com_podmonitors.yaml",
        "monitoring.coreos.com_prometheusrules.yaml",
        "monitoring.coreos.com_servicemonitors.yaml",
    ),
}


def are_built() -> bool:
    """Whether all of it is there already."""
    return all(_path(name).exists() for name in PROGRAMS) and _schemas_folder().exists()


@cache
def program(name: str) -> Path:
    """The path of a program. Raises `CannotBuild`."""
    path = _path(name)
    if not path.exists():
        _build(PROGRAMS[name], path)
    return path


def run(name: str, *arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, and return what it said."""
    command = [program(name), *arguments]
    # A user's own plugins and repositories have no part in it.
    home = {f"HELM_{kind}_HOME": str(_cache() / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        command, check=False, text=True, capture_output=True, timeout=_RUN_S, env=os.environ | home, **options
    )


@cache
def schemas() -> Path:
    """The folder with a strict JSON Schema for every kind of Kubernetes and of the CRDs. Raises `CannotBuild`."""
    folder = _schemas_folder()
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as made:
            for name, schema in (*_kubernetes_schemas(), *_crd_schemas()):
                (Path(made) / f"{name}.json").write_text(json.dumps(schema))
            shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


# --- building


def _cache() -> Path:
    folder = cache_folder("chart")
    folder.mkdir(exist_ok=True)
    return folder


def _path(name: str) -> Path:
    return _cache() / f"{name}-{PROGRAMS[name].version}"


def _schemas_folder() -> Path:
    return _cache() / f"schemas-{KUBERNETES}"


def _build(wanted: Program, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        # In a module of our own: `go install` refuses what has a `replace`.
        _go(folder, "mod", "init", "tidemark.tools")
        if wanted.replaces:
            _go(folder, "mod", "edit", "-replace", wanted.replaces)
        package = f"{wanted.module}/{wanted.package}"
        _go(folder, "get", f"{package}@{wanted.version}")
        _go(folder, "build", "-mod=mod", "-ldflags=-s -w", "-o", "built", package)
        (Path(folder) / "built").rename(path)


def _module(module: str, version: str) -> Path:
    """The folder with a module's files."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(json.loads(_go(folder, "mod", "download", "-json", f"{module}@{version}"))["Dir"])


def _go(folder: str, *arguments: str) -> str:
    if shutil.which("go") is None:
        raise CannotBuild("there is no Go here")
    done = subprocess.run(
        ["go", *arguments], cwd=folder, check=False, text=True, capture_output=True, timeout=_BUILD_S,
        env=os.environ | {"GOFLAGS": "-buildvcs=false"},
    )  # fmt: skip
    if done.returncode:
        raise CannotBuild(f"go {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout


# --- schemas


def _kubernetes_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    swagger = _module("k8s.io/kubernetes", f"v{KUBERNETES}") / "api" / "openapi-spec" / "swagger.json"
    found = json.loads(swagger.read_text())["definitions"]
    definitions = {name: _strict(definition) for name, definition in found.items()}
    for name, definition in found.items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            ours = definitions[name] | {"definitions": _used(name, definitions)}
            yield _name(kind["kind"], kind["group"], kind["version"]), ours


def _used(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that one needs."""
    used: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        definition = definitions[waiting.pop()]
        for needed in _references(definition):
            if needed not in used:
                used[needed] = definitions[needed]
                waiting.append(needed)
    return used


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.removeprefix("#/definitions/")
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _crd_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for (module, version, folder), files in _CRDS.items():
        for file in files:
            crd = yaml.safe_load((_module(module, version) / folder / file).read_text())["spec"]
            for served in crd["versions"]:
                name = _name(crd["names"]["kind"], crd["group"], served["name"])
                yield name, _strict(served["schema"]["openAPIV3Schema"], keep_open={"metadata"})


def _name(kind: str, group: str, version: str) -> str:
    """As kubeconform looks for it: by the first part of the group."""
    return "-".join(part.lower() for part in (kind, group.split(".", maxsplit=1)[0], version) if part)


def _strict(schema: dict[str, Any], keep_open: Collection[str] = ()) -> dict[str, Any]:
    """With no fields but those that are named, and numbers where Kubernetes takes them for text."""

    def walk(part: Any, at: str) -> Any:
        if isinstance(part, list):
            return [walk(one, at) for one in part]
        if not isinstance(part, dict):
            return part
        walked = {name: walk(value, name) for name, value in part.items()}
        if part.get("x-kubernetes-int-or-string") or part.get("format") == "int-or-string" or _is_quantity(part):
            return {"type": ["string", "number"]}
        is_object = isinstance(part.get("properties"), dict) and part.get("type", "object") == "object"
        open_ended = "additionalProperties" in part or part.get("x-kubernetes-preserve-unknown-fields")
        if is_object and not open_ended and at not in keep_open:
            walked["additionalProperties"] = False
        return walked

    walked: dict[str, Any] = walk(schema, "")
    return walked


def _is_quantity(part: dict[str, Any]) -> bool:
    return str(part.get("description", "")).startswith("Quantity is a fixed-point")
