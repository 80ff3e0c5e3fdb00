"""docker-compose.yml and the Dockerfile agree with the service and with what they mount, and stay on loopback."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubscope
from hubscope.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

# Where each service listens, as the argument or variable that says so. Without it, images listen on every address.
LISTENS = {
    "timescaledb": ["listen_addresses=127.0.0.1", "port=5432"],
    "hubscope": ["HUBSCOPE_HOST=127.0.0.1", "HEALTH_PORT=3401"],
    "postgres_exporter": ["--web.listen-address=127.0.0.1:9187"],
    "prometheus": ["--web.listen-address=127.0.0.1:9090"],
    "alertmanager": ["--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="],
    "grafana": ["GF_SERVER_HTTP_ADDR=127.0.0.1", "GF_SERVER_HTTP_PORT=3000"],
}
# What has no health check, and why.
UNCHECKED = {
    "migrate": "runs once and exits",
    "worker": "has no port; its lag is a metric",
}
SECRETS = {
    "POSTGRES_PASSWORD",
    "HUBSCOPE_GRAFANA_PASSWORD",
    "POSTGRES_EXPORTER_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
}


def filled(value: object) -> str:
    """The text of a value with its `${NAME:-default}` replaced by the defaults."""
    return re.sub(r"\$\{\w+:-(\w+)\}", r"\1", str(value))


def words(service: str) -> list[str]:
    """The command's arguments, and the environment as NAME=value."""
    model = SERVICES[service]
    environment = model.get("environment", {})
    return [filled(each) for each in [*model.get("command", []), *(f"{k}={v}" for k, v in environment.items())]]


def mounts(service: str) -> list[tuple[str, str]]:
    """Source and target of every volume."""
    pairs = [volume.split(":") for volume in SERVICES[service].get("volumes", [])]
    return [(pair[0], pair[1]) for pair in pairs]


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_a_pinned_tag(service: str) -> None:
    _, _, tag = SERVICES[service]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag), f"{SERVICES[service]['image']} is not pinned"


def test_the_base_images_are_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases
    assert all(re.match(r"\w+:\d+\.\d+", base) for base in bases)


@pytest.mark.parametrize("service", OWN)
def test_our_own_image_is_built_here_and_tagged_with_our_version(service: str) -> None:
    assert SERVICES[service]["image"] == f"hubscope:{hubscope.__version__}"
    assert SERVICES[service]["pull_policy"] == "build"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_publishes_nothing_and_listens_on_loopback_only(service: str) -> None:
    assert SERVICES[service]["network_mode"] == "host"
    assert "ports" not in SERVICES[service]
    assert set(LISTENS.get(service, [])) <= set(words(service))
    addresses = [address for word in words(service) for address in re.findall(r"\d+\.\d+\.\d+\.\d+", word)]
    assert set(addresses) <= {"127.0.0.1"}


def test_every_service_that_listens_is_known_and_the_others_do_not_listen() -> None:
    assert SERVICES.keys() - LISTENS.keys() == UNCHECKED.keys()


def test_everything_that_is_scraped_or_asked_listens_where_it_is_looked_for() -> None:
    listening = {"127.0.0.1:3401", "127.0.0.1:5432", "127.0.0.1:3000"}
    listening |= {word.partition("=")[2] for service in LISTENS for word in words(service) if "web.listen" in word}
    prometheus = (ROOT / "prometheus" / "prometheus.yml").read_text()
    wanted = set(
        re.findall(r"127\.0\.0\.1:\d+", " ".join([prometheus, *words("grafana"), *words("postgres_exporter")]))
    )
    assert wanted <= listening


@pytest.mark.parametrize("service", OWN)
def test_every_variable_that_is_set_for_hubscope_is_a_setting(service: str) -> None:
    assert SERVICES[service]["environment"].keys() <= set(Settings.variables())


def test_every_variable_that_the_image_sets_for_hubscope_is_a_setting() -> None:
    named = set(re.findall(r"\b((?:HUBSCOPE|POSTGRES)_\w+)=", DOCKERFILE))
    assert named <= set(Settings.variables())


@pytest.mark.parametrize("service", OWN)
def test_hubscope_runs_as_a_user_without_rights(service: str) -> None:
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]


def test_a_secret_has_no_default_and_is_asked_for() -> None:
    assert set(re.findall(r"\$\{(\w+):\?set it in \.env\}", TEXT)) == SECRETS
    assert not re.search(rf"\$\{{(?:{'|'.join(SECRETS)})(?::-|\}})", TEXT)
    assert not re.search(r"(?i)\w*(?:password|_pass): (?!\$\{)", TEXT)


def test_the_example_environment_names_exactly_what_compose_asks_for_and_holds_no_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)) == set(re.findall(r"\$\{(\w+):", TEXT))
    assert set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE)) == SECRETS


@pytest.mark.parametrize("service", SERVICES)
def test_a_mounted_path_exists_in_the_repository_and_is_read_only(service: str) -> None:
    for source, target in mounts(service):
        if source.startswith("./"):
            assert (ROOT / source).exists()
            assert f"{source}:{target}:ro" in SERVICES[service]["volumes"]
        else:
            assert source in COMPOSE["volumes"]


def test_what_the_configurations_name_is_mounted_where_they_look() -> None:
    provider = yaml.safe_load((ROOT / "grafana" / "provisioning" / "dashboards" / "hubscope.yml").read_text())
    assert ("./grafana/dashboards", provider["providers"][0]["options"]["path"]) in mounts("grafana")
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "grafana" / "dashboards" / Path(home).name).is_file()
    rules = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    assert rules == ["rules/*.yml"]
    assert ("./prometheus/rules", "/etc/prometheus/rules") in mounts("prometheus")


def test_every_variable_of_grafanas_provisioning_is_set() -> None:
    provisioning = "".join(path.read_text() for path in (ROOT / "grafana" / "provisioning").rglob("*.yml"))
    used = set(re.findall(r"\$([A-Z]\w+)", provisioning))
    assert used == {name for name in SERVICES["grafana"]["environment"] if name.startswith("HUBSCOPE_")}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_health_check_or_a_reason(service: str) -> None:
    check = SERVICES[service].get("healthcheck", {})
    assert ("test" in check) != (service in UNCHECKED)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_for_the_health_of_what_has_a_health_check_and_for_the_end_of_what_runs_once(
    service: str,
) -> None:
    for needed, how in SERVICES[service].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if needed == "migrate" else "service_healthy"
        assert how["condition"] == wanted


def test_what_the_dockerfile_copies_is_in_the_build_context() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [
        source
        for arguments in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in arguments.split()[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)
