"""The chart in a real cluster: from nothing to ready, disturbed under load, and gone again."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from tests.chart.cluster import HERE, PARTITIONS, RELEASE, WORKERS, Cluster, load_images
from tests.chart.tools import CannotBuild
from tests.image.engine import KAFKA, POSTGRES, Engine, engine
from tests.servers import CannotRun

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

ONE, TWO, LOAD = "tidemark-test/worker:one", "tidemark-test/worker:two", "tidemark-test/load:dev"

UPGRADE_S, KILL_S = 3.0, 10.0
"""How long a partition may be without answers at most: goals."""


_KILL = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().endswith(b"tidemark\\0worker\\0"):
        os.kill(int(process.name), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def images() -> None:
    """The images are on the cluster's nodes."""
    with ExitStack() as ending:
        try:
            docker = ending.enter_context(engine())
            _build(docker)
            load_images(docker, ONE, TWO, LOAD, KAFKA, POSTGRES)
        except CannotRun as reason:
            pytest.skip(str(reason))


def _build(docker: Engine) -> None:
    docker.build_tidemark(ONE)
    docker.run("tag", ONE, TWO)
    docker.build(LOAD, HERE / "load.Dockerfile", HERE.parent, BASE=ONE)
    docker.build_kafka()
    docker.build_postgres()


@pytest.fixture(params=["helm3", "helm4"])
def cluster(request: pytest.FixtureRequest, images: None) -> Iterator[Cluster]:
    """A namespace with Kafka and PostgreSQL."""
    try:
        made = Cluster(request.param)
    except (CannotRun, CannotBuild) as reason:
        pytest.skip(str(reason))
    with made as cluster:
        parts = (HERE / "parts.yaml").read_text().replace("@KAFKA@", KAFKA).replace("@POSTGRES@", POSTGRES)
        cluster.kubectl("apply", "--filename=-", stdin=parts)
        cluster.is_ready("kafka", "postgres")
        yield cluster


def test_from_nothing_to_ready_and_gone(cluster: Cluster) -> None:
    before = cluster.objects()
    began = time.monotonic()
    cluster.upgrade(_image(ONE))
    print(f"ready after {time.monotonic() - began:.0f} s")
    cluster.helm("test", RELEASE)

    cluster.helm("uninstall", RELEASE, "--wait")
    cluster.kubectl("wait", "--for=delete", "pod", "--selector=app.kubernetes.io/instance=t", "--timeout=60s")

    assert cluster.objects() - before == set(), "what the chart made is gone"
    cluster.upgrade(_image(ONE))
    cluster.helm("test", RELEASE)
    read = cluster.kubectl("exec", f"{WORKERS}-0", "--container=worker", "--", "tidemark", "stats", "--output", "json")
    assert json.loads(read)["events"] == 2, "topics and data were kept"


@pytest.mark.parametrize("cluster", ["helm3"], indirect=True)
@pytest.mark.parametrize("static", [False, True], ids=["moves", "static"])
def test_no_promise_is_broken_while_everything_is_disturbed(
    cluster: Cluster, static: bool, record_property: Callable[[str, object], None]
) -> None:
    member = f"workload.staticMembership={json.dumps(static)},shareProcessNamespace=true"
    image = _image(ONE)
    cluster.upgrade(image, member)
    _start_load(cluster)

    def phase(name: str) -> None:
        cluster.kubectl("exec", "load", "--", "python3", "-m", "tests.chart.load", "mark", name)

    phase("nothing")
    time.sleep(10)  # what a pause is where nothing happens
    phase("rolling upgrade")
    cluster.upgrade(image := _image(TWO), member)
    phase("settings changed")
    cluster.upgrade(image, member, "settings.batch_size=1000")
    phase("rollback")
    cluster.helm("rollback", RELEASE, "--wait", "--timeout", "170s")
    cluster.rolled_out()
    phase("pod deleted")
    cluster.kubectl("delete", "pod", f"{WORKERS}-0")
    cluster.is_ready(f"{WORKERS}-0")
    phase("worker killed")
    _kill(cluster, f"{WORKERS}-1")
    phase("scaled to 1")
    cluster.upgrade(image, member, "workload.replicas=1")
    phase("scaled to 4")
    cluster.upgrade(image, member, "workload.replicas=4")
    phase("scaled to 2")
    cluster.upgrade(image, member, "workload.replicas=2")
    phase("PostgreSQL restarted")
    cluster.restart("postgres", "INT")
    phase("broker restarted")
    cluster.restart("kafka", "TERM")
    phase("after")

    verdict = _end_load(cluster)
    for name, pause_s in verdict["pauses"].items():
        record_property(name, pause_s)
        print(f"{name:22} {pause_s:6.2f} s")
    print(f"{verdict['answers']} answers on {PARTITIONS} partitions")
    assert verdict["breaches"] == []
    if not static:
        assert verdict["pauses"]["rolling upgrade"] < UPGRADE_S
        assert verdict["pauses"]["worker killed"] < KILL_S
    assert verdict["answers"] > 1_000


def _image(name: str) -> str:
    repository, tag = name.split(":")
    return f"image.repository={repository},image.tag={tag}"


def _start_load(cluster: Cluster) -> None:
    """A pod with the settings of the workers."""
    (workers,) = (one for one in _manifests(cluster) if one["kind"] == "StatefulSet")
    template = workers["spec"]["template"]["spec"]
    container = next(one for one in template["containers"] if one["name"] == "worker")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": template["securityContext"],
            "volumes": template["volumes"],
            "containers": [
                {
                    "name": "load",
                    "image": LOAD,
                    "args": ["run"],
                    **{key: container[key] for key in ("securityContext", "volumeMounts", "envFrom", "env")},
                }
            ],
        },
    }
    cluster.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(pod))
    cluster.is_ready("load")


def _manifests(cluster: Cluster) -> list[Any]:
    return [one for one in yaml.safe_load_all(cluster.helm("get", "manifest", RELEASE)) if one]


def _end_load(cluster: Cluster) -> Any:
    cluster.kubectl("exec", "load", "--", "sh", "-c", "kill -INT 1")
    deadline = time.monotonic() + 300
    while (phase := cluster.pod("load")["status"]["phase"]) == "Running":
        assert time.monotonic() < deadline, cluster.kubectl("logs", "load", "--tail=50")
        time.sleep(1)
    said = cluster.kubectl("logs", "load")
    assert phase == "Succeeded", said[-3000:]
    return json.loads(said.splitlines()[-1])


def _kill(cluster: Cluster, pod: str) -> None:
    """SIGKILL, which the first process of a PID namespace would not get from within: the pod's containers share one."""
    before = cluster.restarts(pod)
    cluster.kubectl("exec", pod, "--container=worker", "--", "python3", "-c", _KILL)
    cluster.is_restarted(pod, before)
