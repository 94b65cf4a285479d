"""The deployment's files, as far as they can be checked without an engine."""

import re
from pathlib import Path

import yaml

from deploy.settings_table import CLASSES, table

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}


def test_the_runbook_lists_every_setting_as_it_is():
    assert table() in (DEPLOY / "README.md").read_text()


def test_every_service_that_stays_has_a_health_check():
    assert {"topic", "migrate"} == ONE_SHOT
    assert [
        name for name, service in SERVICES.items() if name not in ONE_SHOT and "healthcheck" not in service
    ] == []


def test_ports_are_published_on_loopback_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_passwords_have_no_defaults():
    text = (DEPLOY / "compose.yaml").read_text()
    variables = re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text)
    assert {name for name, _ in variables} == {"KAFKA_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in variables)


def test_services_are_configured_by_settings_that_exist():
    known = {
        f"{kind.model_config['env_prefix']}{name.upper()}" for kind in CLASSES for name in kind.model_fields
    }
    used = {
        name
        for service in SERVICES.values()
        for name in service["environment"]
        if name.startswith("HOTPATH_")
    }
    assert used and used <= known


def test_services_wait_for_services_that_exist():
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wait["condition"] == wanted, (name, other)


def test_the_image_copies_what_the_commands_need():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    modules = {
        service["command"][2].split(".")[0]
        for service in SERVICES.values()
        if "-m" in service.get("command", [])
    }
    assert modules == {"hotpath", "api", "generator"}
    for folder in (*modules, "sql"):
        assert f"COPY {folder} /app/{folder}" in dockerfile
    assert "USER hotpath" in dockerfile
