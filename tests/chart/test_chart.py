"""The chart as Helm 3 and 4 render it: linted, held against Kubernetes' schemas, and refused where it is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from processor.kafka.topics import topic_specs
from processor.settings import Settings
from tests.chart.tools import KUBERNETES, run, schemas

CHART = Path(__file__).parents[2] / "helm" / "tidemark"
VARIANTS = sorted((CHART / "ci").glob("*-values.yaml"))
DEFAULT = CHART / "ci" / "default-values.yaml"
HELMS = ["helm3", "helm4"]

pytestmark = [pytest.mark.chart, pytest.mark.usefixtures("built"), pytest.mark.timeout(1_800)]

variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda path: path.stem.removesuffix("-values"))
helms = pytest.mark.parametrize("helm", HELMS)

Object = dict[str, Any]


def rendered(helm: str, variant: Path, *arguments: str) -> list[Object]:
    """The objects of a release, hooks and tests included, in an order of their own."""
    done = run(helm, "template", "t", CHART, "--kube-version", KUBERNETES, "-f", variant, *arguments)
    assert not done.returncode, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return sorted(objects, key=lambda one: (one["kind"], one["metadata"]["name"]))


@helms
@variants
def test_lints(helm: str, variant: Path) -> None:
    done = run(helm, "lint", "--strict", CHART, "-f", variant)

    assert not done.returncode, done.stdout + done.stderr


@variants
def test_is_the_same_by_helm_3_and_4(variant: Path) -> None:
    assert rendered("helm3", variant) == rendered("helm4", variant)


@variants
def test_is_what_kubernetes_and_the_operators_take(variant: Path) -> None:
    objects = rendered("helm3", variant)
    done = run(
        "kubeconform", "-strict", "-summary", "-skip", "KafkaTopic",
        "-schema-location", f"{schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        input=yaml.safe_dump_all(objects),
    )  # fmt: skip

    assert not done.returncode, done.stdout + done.stderr
    topics = sum(one["kind"] == "KafkaTopic" for one in objects)
    assert f"Valid: {len(objects) - topics}, Invalid: 0, Errors: 0, Skipped: {topics}" in done.stdout


def test_the_schemas_find_a_field_that_does_not_exist() -> None:
    objects = rendered("helm3", DEFAULT)
    (worker,) = (one for one in objects if one["kind"] == "StatefulSet")
    worker["spec"]["template"]["spec"]["containers"][0]["port"] = []
    done = run(
        "kubeconform", "-strict",
        "-schema-location", f"{schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        input=yaml.safe_dump(worker),
    )  # fmt: skip

    assert done.returncode
    assert "additional properties 'port' not allowed" in done.stdout


@variants
def test_all_pods_keep_to_the_restricted_standard(variant: Path) -> None:
    objects = rendered("helm3", variant)
    specs = [one["spec"] for one in objects if one["kind"] == "Pod"]
    specs += [one["spec"]["template"]["spec"] for one in objects if one["kind"] in {"StatefulSet", "Deployment", "Job"}]
    assert len(specs) >= 2, "the workers and the test"
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in _of_the_chart([*spec["containers"], *spec.get("initContainers", [])]):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def _of_the_chart(containers: Sequence[Object]) -> list[Object]:
    return [container for container in containers if "tidemark" in container["image"]]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("kafka.brokers={kafka}", "/kafka/brokers/0"),
        ("kafka.brokers={}", "/kafka/brokers"),
        ("kafka.security=SSL", "'security' not allowed"),
        ("kafka.securityProtocol=TLS", "/kafka/securityProtocol"),
        ("workload.replicas=two", "/workload/replicas"),
        ("workload.kind=DaemonSet", "/workload/kind"),
        ("settings.partitions=0", "/settings/partitions"),
        ("settings.partition=4", "'partition' not allowed"),
        ("settings.durability=most", "/settings/durability"),
        ("replicaCount=3", "'replicaCount' not allowed"),
        ("topics.replicationFactor=0", "/topics/replicationFactor"),
        ("image.digest=abc", "/image/digest"),
        ("store.url=mysql://x/y", "/store/url"),
        ("metrics.prometheusRule.runbookUrl=wiki", "/metrics/prometheusRule/runbookUrl"),
    ],
)
@helms
def test_a_wrong_value_is_named(helm: str, given: str, named: str) -> None:
    done = run(helm, "template", "t", CHART, "--kube-version", KUBERNETES, "-f", DEFAULT, "--set", given)

    assert done.returncode
    assert named in done.stderr


@pytest.mark.parametrize("factor", [-1, 1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"partitions": 8, "topic_prefix": "orders.", "tenants": ["default", "acme"]},
        {"max_record_bytes": 2_000_000, "max_events": 50, "max_name_bytes": 64},
    ],
    ids=["defaults", "names", "limits"],
)
def test_the_topics_for_strimzi_are_those_that_the_worker_wants(
    settings: dict[str, Any], factor: int, tmp_path: Path
) -> None:
    values = {
        "settings": settings,
        "topics": {"mode": "strimzi", "replicationFactor": factor, "strimzi": {"cluster": "kafka"}},
    }
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(values))
    objects = rendered("helm3", DEFAULT, "-f", str(tmp_path / "more.yaml"))

    found = {
        one["spec"]["topicName"]: (one["spec"]["partitions"], one["spec"].get("replicas", -1), one["spec"]["config"])
        for one in objects
        if one["kind"] == "KafkaTopic"
    }
    assert found == {
        spec.name: (spec.partitions, spec.replication_factor, spec.configs)
        for spec in topic_specs(Settings(**settings, replication_factor=factor))
    }


def test_numbers_and_lists_reach_the_worker_as_they_were_written() -> None:
    given = "settings.max_record_bytes=64000000,settings.refusal_retention_s=3153600000,settings.tenants={default,acme}"
    objects = rendered("helm3", DEFAULT, "--set", given)

    (data,) = (one["data"] for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "t-tidemark")
    assert data["TIDEMARK_MAX_RECORD_BYTES"] == "64000000"
    assert data["TIDEMARK_REFUSAL_RETENTION_S"] == "3153600000"
    assert data["TIDEMARK_TENANTS"] == "default,acme"


def test_a_changed_setting_makes_new_pods() -> None:
    def checksum(*given: str) -> str:
        (worker,) = (one for one in rendered("helm3", DEFAULT, *given) if one["kind"] == "StatefulSet")
        return str(worker["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum("--set", "workload.replicas=3")
    assert checksum() != checksum("--set", "settings.batch_size=100")


def test_the_unit_tests() -> None:
    done = run("helm-unittest", CHART)

    assert not done.returncode, done.stdout + done.stderr


def test_the_readme_is_as_helm_docs_writes_it() -> None:
    done = run("helm-docs", "--chart-search-root", CHART, "--dry-run", "--log-level", "warning")

    assert not done.returncode, done.stderr
    assert done.stdout.strip() == (CHART / "README.md").read_text(encoding="utf-8").strip()
